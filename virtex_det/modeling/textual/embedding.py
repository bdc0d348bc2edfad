"""The embedding of caption tokens."""

import torch
from torch import Tensor, nn


class WordAndPositionEmbedding(nn.Module):
    """Sum of a learned word and a learned position embedding, normalised; zero at padding.

    Args:
        vocab_size: tokens in the vocabulary.
        hidden_size: width of an embedding.
        max_length: longest caption, in tokens.
        dropout: dropout probability, applied after normalisation.
        padding_idx: token whose embedding stays zero.

    Example:
        >>> embedding = WordAndPositionEmbedding(10, hidden_size=4, max_length=30, dropout=0.0)
        >>> vectors = embedding(torch.tensor([[1, 7, 2, 0]]))
        >>> vectors.shape
        torch.Size([1, 4, 4])
        >>> bool(vectors[0, 3].any())  # padding
        False
    """

    def __init__(
        self,
        vocab_size: int,
        hidden_size: int,
        max_length: int,
        dropout: float,
        padding_idx: int = 0,
    ):
        super().__init__()
        self.padding_idx = padding_idx
        self.words = nn.Embedding(vocab_size, hidden_size, padding_idx=padding_idx)
        self.positions = nn.Embedding(max_length, hidden_size)
        self.layer_norm = nn.LayerNorm(hidden_size, eps=1e-8)  # the published models' epsilon
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor) -> Tensor:
        """Embed tokens of shape (captions, length); returns (captions, length, hidden_size)."""
        positions = torch.arange(tokens.shape[1], device=tokens.device)
        # shape: (captions, length, hidden_size)
        embeddings = self.layer_norm(self.words(tokens) + self.positions(positions))
        return self.dropout(embeddings) * (tokens != self.padding_idx).unsqueeze(-1)
