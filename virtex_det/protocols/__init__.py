"""Protocols: the published recipes, the match of a config to one, and their description."""

from virtex_det.protocols.card import protocol_card
from virtex_det.protocols.catalog import Protocol, protocols
from virtex_det.protocols.matching import nearest_protocol, protocol_id

__all__ = ["Protocol", "nearest_protocol", "protocol_card", "protocol_id", "protocols"]
