"""Keys and values of generation in tensors with room for more: the library's are copied whole for every new token."""

import functools

from ..device import has_card

ROOM = 64  # tokens of room whenever there is none left


def roomy_cache():
    """An empty cache for a model, all of whose layers keep every token, those with a sliding window too: the mask hides
    what is out of it. None on a GPU, where Unsloth keeps a cache of its own."""
    from transformers import Cache

    return None if has_card() else Cache(layer_class_to_replicate=_layer_class())


@functools.cache
def _layer_class():
    from transformers.cache_utils import DynamicLayer

    class RoomyLayer(DynamicLayer):
        def lazy_initialization(self, key_states, value_states):
            super().lazy_initialization(key_states, value_states)
            self.rooms = self.keys, self.values  # what `keys` and `values` are the beginning of

        def update(self, key_states, value_states, *args, **kwargs):  # (B, G, T, D) twice
            if not self.is_initialized:
                self.lazy_initialization(key_states, value_states)
            key_room, self.keys = _append(self.rooms[0], self.keys, key_states)
            value_room, self.values = _append(self.rooms[1], self.values, value_states)
            self.rooms = key_room, value_room
            return self.keys, self.values  # (B, G, S + T, D)

    return RoomyLayer


def _append(room, old, new):
    """(room (B, G, R, D), its first S + T tokens): `old` (B, G, S, D), if not empty, and `new` (B, G, T, D)."""
    length = old.size(2) if old.numel() else 0
    total = length + new.size(2)
    if old.data_ptr() != room.data_ptr() or room.dim() < 4 or len(room) != len(new) or total > room.size(2):
        room = new.new_empty(*new.shape[:2], total + ROOM, new.size(3))
        if length:
            room[:, :, :length] = old
    room[:, :, length:total] = new
    return room, room[:, :, :total]
