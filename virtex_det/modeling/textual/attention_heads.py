"""How many heads an attention may have."""

from virtex_det.errors import UserError


def check_heads(key: str, heads: int, size: int) -> None:
    """Refuse heads that cannot share a width out equally; PyTorch's assertion names neither key nor width.

    Args:
        key: of the config, that says how many heads.
        heads: their number.
        size: width of a token's vector.

    Raises:
        UserError: they do not divide it.
    """
    if heads < 1 or size % heads:
        raise UserError(
            f"{key} is {heads}, and a token's vector has {size} numbers, which so many heads cannot share equally.\n"
            f"Set {key} to a divisor of {size}, such as {max(number for number in range(1, 17) if size % number == 0)}."
        )
