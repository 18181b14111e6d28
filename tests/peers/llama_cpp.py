"""llama.cpp's own server, with a model of half a megabyte that is made here and talks nonsense."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from appliance.cli.box import HOST, free_port
from tests.waiting import block_until

MODEL = "tiny"
SLOTS = 2
CONTEXT = 8192
"""Tokens a slot has room for."""

_WORDS = [
    "yes",
    "no",
    "table",
    "four",
    "eight",
    "please",
    "booked",
    "for",
    "your",
    "is",
    "at",
    "there",
    "anything",
    "else",
]
_WORDS += ["one", "moment", "the", "a", "of", "we", "are", "open", "you", "may", "come", "good", "day", "tomorrow"]
_CHARACTERS = "abcdefghijklmnopqrstuvwxyz.,?\u2581"
_UNKNOWN, _BEGIN, _END, _BYTES = 0, 1, 2, 256
_TEMPLATE = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:"
_SERVE = """
import sys, xllamacpp
path, port, key = sys.argv[1:4]
params = xllamacpp.CommonParams()
params.model.path, params.model_alias = path, {"tiny"}
params.hostnames, params.port, params.api_keys = ["127.0.0.1"], int(port), [key] if key else []
params.n_parallel, params.n_ctx, params.n_gpu_layers = 2, 16384, 0
params.cpuparams.n_threads, params.warmup, params.use_jinja, params.endpoint_slots = 1, False, True, True
server = xllamacpp.Server(params)
print("ready", flush=True)
sys.stdin.read()
"""


def missing() -> str:
    """Why llama.cpp can't be used here; empty when it can."""
    gone = [name for name in ("xllamacpp", "gguf") if importlib.util.find_spec(name) is None]
    return f"{' and '.join(gone)} cannot be imported; pip install '.[peers]'" if gone else ""


def write_model(path: Path) -> None:
    """A Llama of two layers with random weights; what it says is made of its few whole words."""
    import gguf

    chance = np.random.default_rng(7)
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(_BYTES))]
    first_word = len(tokens)
    tokens += [f"\u2581{word}" for word in _WORDS] + list(_CHARACTERS)
    first_character = first_word + len(_WORDS)
    kinds = gguf.TokenType
    types = [kinds.UNKNOWN, kinds.CONTROL, kinds.CONTROL, *[kinds.BYTE] * _BYTES]
    types += [kinds.NORMAL] * (len(tokens) - first_word)
    width, heads, inner, layers = 64, 4, 128, 2

    def weights(*shape: int, scale: float = 0.3) -> np.ndarray[Any, np.dtype[np.float32]]:
        return (chance.standard_normal(shape) * scale).astype(np.float32)

    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name(MODEL)
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(width)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(inner)
    writer.add_head_count(heads)
    writer.add_head_count_kv(heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(width // heads)
    writer.add_vocab_size(len(tokens))
    writer.add_file_type(0)
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * first_word + [-float(n) for n in range(len(tokens) - first_word)])
    writer.add_token_types(types)
    writer.add_unk_token_id(_UNKNOWN)
    writer.add_bos_token_id(_BEGIN)
    writer.add_eos_token_id(_END)
    writer.add_add_bos_token(True)
    writer.add_chat_template(_TEMPLATE)
    output = weights(len(tokens), width, scale=1.0)
    output[:first_word] = 0
    output[first_character:] *= 0.1
    writer.add_tensor("token_embd.weight", weights(len(tokens), width, scale=1.0))
    writer.add_tensor("output.weight", output)
    writer.add_tensor("output_norm.weight", np.ones(width, np.float32))
    for layer in range(layers):
        block = f"blk.{layer}."
        for norm in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"{block}{norm}.weight", np.ones(width, np.float32))
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            writer.add_tensor(f"{block}{name}.weight", weights(width, width))
        writer.add_tensor(f"{block}ffn_gate.weight", weights(inner, width))
        writer.add_tensor(f"{block}ffn_up.weight", weights(inner, width))
        writer.add_tensor(f"{block}ffn_down.weight", weights(width, inner))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


class LlamaServer:
    """``with LlamaServer(folder) as server``: a process of its own. ``key``: the API key that it wants."""

    def __init__(self, folder: Path, key: str = "") -> None:
        self.key = key
        self._folder = folder
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self._port}/v1"

    def busy_slots(self) -> int:
        """How many replies it works on."""
        return sum(slot["is_processing"] for slot in self._get("/slots"))

    def __enter__(self) -> LlamaServer:
        model = self._folder / "tiny.gguf"
        if not model.exists():
            write_model(model)
        log = self._folder / "llama.log"
        with log.open("ab") as out:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _SERVE, str(model), str(self._port), self.key],
                stdin=subprocess.PIPE, stdout=out, stderr=subprocess.STDOUT,
            )  # fmt: skip
        block_until(self._healthy, lambda: f"llama.cpp does not answer: {log.read_text(errors='replace')[-2000:]}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.kill()
        self._process.wait()
        self._process.stdin.close()

    def _healthy(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, f"llama.cpp left: {(self._folder / 'llama.log').read_text()[-2000:]}"
        try:
            self._get("/health")
        except (OSError, urllib.error.HTTPError):
            return False
        return True

    def _get(self, path: str) -> Any:
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        request = urllib.request.Request(f"http://{HOST}:{self._port}{path}", headers=headers)
        with urllib.request.urlopen(request, timeout=5) as answer:
            return json.loads(answer.read())
