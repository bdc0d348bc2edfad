"""A check of the number of attention heads."""

from virtex_det.errors import UserError


def check_heads(key: str, heads: int, size: int) -> None:
    """Refuse a number of heads that does not divide the width; PyTorch's assertion names neither.

    Args:
        key: config key of the number of heads.
        heads: its value.
        size: width of a token's vector.

    Raises:
        UserError: the number of heads does not divide the width.
    """
    if heads < 1 or size % heads:
        largest = max(number for number in range(1, 17) if size % number == 0)
        raise UserError(
            f"{key} is {heads}, but must divide the width of a token's vector, {size}.\n"
            f"Set {key} to a divisor of {size}, such as {largest}."
        )
