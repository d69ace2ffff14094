"""Encoders of other libraries, told by what they can do; none of those libraries is imported."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metaindex.checks import integer, is_torch
from metaindex.encoders import identity
from metaindex.encoders.encoder import Encoder
from metaindex.encoders.inputs import Content, contents
from metaindex.encoders.unit import unit
from metaindex.errors import ShapeError
from metaindex.nesting import check_order
from metaindex.nesting import nest as nested_order

_PLAIN = (str, int, float, type(None))
Encode = Callable[[list[Content]], Any]


class AdaptedEncoder:
    """An encoder made of two functions; ``as_encoder`` makes them.

    ``nest``: how many vectors of a document are kept, in an ``order`` of ``metaindex.nest``; ``None`` keeps them all.
    """

    def __init__(
        self,
        query: Encode,
        document: Encode,
        fingerprint: Callable[[], str],
        nested: bool | None,
        nest: int | None = None,
        order: str = "facility",
    ) -> None:
        self._query, self._document, self._fingerprint = query, document, fingerprint
        self._nest, self._order = nest, order
        self.nested = nested if nest is None else True

    @property
    def fingerprint(self) -> str:
        return self._fingerprint()

    def encode_query(self, inputs: Sequence[Any]) -> list[NDArray[np.float32]]:
        """For each query its vectors [r_i, d]."""
        return _vectors(self._query, contents(inputs))

    def encode_document(self, inputs: Sequence[Any]) -> list[NDArray[np.float32]]:
        """For each document its vectors [t_i, d]."""
        found = _vectors(self._document, contents(inputs))
        return found if self._nest is None else nested_order(found, self._nest, order=self._order)


def as_encoder(
    model: Any,
    processor: Any = None,
    *,
    name: str | None = None,
    nested: bool | None = None,
    nest: int | None = None,
    order: str = "facility",
    batch_size: int = 8,
) -> Encoder:
    """``model`` as an encoder for ``Retriever``.

    - an ``Encoder``, such as ``MetaEmbed``: itself;
    - sentence-transformers' ``MultiVectorEncoder``: as it is. Where the model scores by the mean, a query's vectors are
      divided by their number, so that the plain sum of an index gives its scores;
    - sentence-transformers' ``SentenceTransformer``: the vectors of the tokens, L2-normalised, instead of their pool;
    - PyLate's ``ColBERT``;
    - a model of colpali-engine, or a ``*ForRetrieval`` of transformers, with its ``processor``; padding is left out;
    - a function that takes a list of inputs and returns [N, T, d] or a list of [t_i, d], or a pair of them, for queries and for
      documents; a torch module is such a function, run without gradients.

    Args:
        name: what the encoder is to be told by, instead of its weights. Of a function no more is known otherwise than
            its name in the code; of a functools.partial what is bound to it too, texts and numbers only.
        nested: whether every prefix of a document's vectors is an embedding of its own, where you know it.
        nest: put so many vectors of each document into the order of ``metaindex.nest``, so that budgets work without training.
            It is part of the fingerprint.
        order: which of the orders of ``metaindex.nest``; part of the fingerprint as well.
        batch_size: inputs in one forward pass, where the model does not batch by itself.

    Raises:
        TypeError: the model is none of these, or lacks its processor.
        ValueError: an unknown ``order``, or one other than "facility" without ``nest``.
    """
    size, kept = integer("batch_size", batch_size), None if nest is None else integer("nest", nest)
    if check_order(order) != "facility" and kept is None:
        raise ValueError(f"order: expected nest= beside it, got {order!r} alone; say how many vectors of a document to keep")
    if isinstance(model, Encoder) and isinstance(model.fingerprint, str):
        if kept is None and name is None and nested is None:
            return model
        found, known = (_items(model.encode_query), _items(model.encode_document)), model.nested
    else:
        found, known = _functions(model, processor, size)
    if name is None:
        _check_told(model)
    fingerprint = partial(_identified, model, name, kept, order)
    return AdaptedEncoder(*found, fingerprint, known if nested is None else nested, kept, order)


def _functions(model: Any, processor: Any, batch_size: int) -> tuple[tuple[Encode, Encode], bool | None]:
    """How to encode queries and documents with ``model``, and whether its documents are nested."""
    encode = getattr(model, "encode", None)
    takes = set() if encode is None else set(inspect.signature(encode).parameters)
    if "is_query" in takes:
        return (_colbert(model, True), _colbert(model, False)), False
    if hasattr(processor, "process_images") and hasattr(processor, "process_queries"):
        return (_pages(model, processor, batch_size, True), _pages(model, processor, batch_size, False)), False
    if processor is not None:
        raise TypeError(
            f"processor: expected one with process_images and process_queries, got {type(processor).__name__}; "
            f"for a transformers backbone without a retrieval head use metaindex.encoders.MetaEmbed"
        )
    if "output_value" in takes and not _is_multi_vector(model):
        return (_token_vectors(model, "encode_query"), _token_vectors(model, "encode_document")), False
    if hasattr(model, "encode_query") and hasattr(model, "encode_document"):
        by_mean = str(getattr(model, "similarity_fn_name", None)).rpartition(".")[2].lower() in ("meanmaxsim", "mean_maxsim")
        return (_queries(model, by_mean), _apart(_items(model.encode_document))), _is_nested(model)
    if isinstance(model, (tuple, list)) and len(model) == 2 and all(map(callable, model)):
        return (_called(model[0]), _called(model[1])), None
    if callable(model) and not _wants_processor(model):
        return (_called(model), _called(model)), None
    raise TypeError(
        f"model: expected an encoder, a function, a pair of functions, or a model of sentence-transformers, PyLate, "
        f"colpali-engine or transformers (with processor=), got {type(model).__name__}"
    )


def _is_multi_vector(model: Any) -> bool:
    return any(base.__name__ == "MultiVectorEncoder" for base in type(model).__mro__)


def _is_nested(model: Any) -> bool | None:
    """Whether a module of a sentence-transformers model says so, as the last one of a MetaEmbed does."""
    return True if any(getattr(module, "nested", False) for module in _modules(model)) else None


def _modules(model: Any) -> list[Any]:
    return list(model.children()) if hasattr(model, "children") else []


def _wants_processor(model: Any) -> bool:
    """A transformers model, which takes tensors, not inputs."""
    return hasattr(model, "config") and hasattr(model, "get_input_embeddings")


def _queries(model: Any, by_mean: bool) -> Encode:
    encode = _apart(_items(model.encode_query))
    return (lambda inputs: [vectors / len(vectors) for vectors in encode(inputs)]) if by_mean else encode


def _token_vectors(model: Any, method: str) -> Encode:
    encode = getattr(model, method, model.encode)  # from before there were prompts for either side

    def encoded(inputs: list[Content]) -> list[NDArray[np.float32]]:
        # Asked for "token_embeddings" alone it leaves out padding at the end only, and some tokenizers pad at the beginning.
        found = encode(_native(inputs), output_value=None, show_progress_bar=False)
        return [unit(_array(each["token_embeddings"][each["attention_mask"].bool()])) for each in found]

    return encoded


def _colbert(model: Any, is_query: bool) -> Encode:
    return lambda inputs: model.encode(_native(inputs), is_query=is_query, show_progress_bar=False)


def _items(encode: Callable[[Any], Any]) -> Encode:
    return lambda inputs: encode(_native(inputs))


def _apart(encode: Encode) -> Encode:
    """``encode`` of texts, of images and of both apart, for models that take one kind at a time."""

    def encoded(inputs: list[Content]) -> list[Any]:
        found: list[Any] = [None] * len(inputs)
        kinds = [(each.image is None, each.text is None) for each in inputs]
        for kind in sorted(set(kinds)):
            places = [place for place, each in enumerate(kinds) if each == kind]
            for place, vectors in zip(places, _counted(encode([inputs[place] for place in places]), len(places))):
                found[place] = vectors
        return found

    return encoded


def _called(function: Callable[[Any], Any]) -> Encode:
    def called(inputs: list[Content]) -> Any:
        with _inference(function):
            return function(_native(inputs))

    return called


def _pages(model: Any, processor: Any, batch_size: int, is_query: bool) -> Encode:
    def encoded(inputs: list[Content]) -> list[Any]:
        found: list[Any] = [None] * len(inputs)
        with _inference(model):
            for alike in _of_one_length(processor, inputs, is_query):
                for start in range(0, len(alike), batch_size):
                    places = alike[start : start + batch_size]
                    features = _features(processor, [inputs[place] for place in places], is_query)
                    for place, vectors in zip(places, _counted(_without_padding(model, features), len(places))):
                        found[place] = vectors
        return found

    return _apart(encoded)


def _of_one_length(processor: Any, inputs: list[Content], is_query: bool) -> list[list[int]]:
    """Places of texts that have as many tokens; images all together.

    colpali-engine's ColPali reads a text in both directions where it is alone, and only forwards where a batch is padded.
    """
    if inputs[0].image is not None:
        return [list(range(len(inputs)))]
    places: dict[int, list[int]] = {}
    for place, length in enumerate(_features(processor, inputs, is_query)["attention_mask"].sum(dim=1).tolist()):
        places.setdefault(length, []).append(place)
    return list(places.values())


def _features(processor: Any, inputs: list[Content], is_query: bool) -> Any:
    if inputs[0].image is None:
        texts = [each.text for each in inputs]
        as_document = getattr(processor, "process_texts", None)  # colpali-engine's, without the query's prompt
        return processor.process_queries(texts) if is_query or as_document is None else as_document(texts)
    if any(each.text is not None for each in inputs):
        raise TypeError("inputs: this model takes a text or an image, got both in one input")
    return processor.process_images([each.opened() for each in inputs])


def _without_padding(model: Any, features: Any) -> Iterator[NDArray[np.float32]]:
    tensors = {name: values.to(model.device) for name, values in features.items() if name != "labels"}
    found = model(**tensors)
    vectors = getattr(found, "embeddings", found)
    if vectors.ndim != 3:
        raise ShapeError(
            f"model: expected vectors [N, T, d], got {tuple(vectors.shape)}; a model of one vector for each input is no "
            f"multi-vector encoder"
        )
    for row, kept in zip(vectors, tensors["attention_mask"].bool()):
        yield _array(row[kept])


def _native(inputs: list[Content]) -> list[Any]:
    """Inputs as other libraries take them: a text, an image in memory, or a dict of both."""
    return [
        each.text if each.image is None else each.opened() if each.text is None else {"text": each.text, "image": each.opened()}
        for each in inputs
    ]


@contextmanager
def _inference(model: Any) -> Iterator[None]:
    """A torch module runs without dropout and gradients; anything else as it is."""
    if not hasattr(model, "state_dict") or not hasattr(model, "eval"):
        yield
        return
    import torch

    training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        model.train(training)


def _vectors(encode: Encode, inputs: list[Content]) -> list[NDArray[np.float32]]:
    if not inputs:
        return []
    found = [_array(vectors) for vectors in _counted(encode(inputs), len(inputs))]
    for place, vectors in enumerate(found):
        if vectors.ndim != 2 or not len(vectors):
            raise ShapeError(f"model: expected vectors (tokens, d) of inputs[{place}], got {vectors.shape}")
    return found


def _counted(encoded: Any, inputs: int) -> list[Any]:
    """What a model made of so many inputs, one by one."""
    if not isinstance(encoded, Iterable):
        raise TypeError(f"model: expected the vectors of {inputs} inputs, got {type(encoded).__name__}")
    found = list(encoded)
    if len(found) != inputs:
        raise ShapeError(f"model: expected the vectors of {inputs} inputs, got {len(found)}")
    return found


def _array(vectors: Any) -> NDArray[np.float32]:
    if is_torch(vectors):
        vectors = vectors.detach().float().cpu().numpy()
    return np.asarray(vectors, dtype=np.float32)


def _identified(model: Any, name: str | None, nest: int | None, order: str) -> str:
    found = _fingerprint(model) if name is None else identity.of_settings(name, {})
    if nest is None:
        return found
    # There was one order once, which went without saying.
    settings = {"of": found, "nest": nest} | ({} if order == "facility" else {"order": order})
    return identity.of_settings(found.partition(":")[0], settings)


def _check_told(model: Any) -> None:
    """A partial function is told by what is bound to it as well, where that can be read."""
    for each in model if isinstance(model, (tuple, list)) else (model,):
        if isinstance(each, partial):
            _check_told(each.func)
            if not all(isinstance(bound, _PLAIN) for bound in (*each.args, *each.keywords.values())):
                raise TypeError(
                    "model: expected functools.partial with texts and numbers bound to it, by which encoders are told apart; "
                    "say with name= what it is"
                )


def _fingerprint(model: Any) -> str:
    if isinstance(model, Encoder) and isinstance(model.fingerprint, str):
        return model.fingerprint
    if isinstance(model, (tuple, list)):
        both = [_fingerprint(each) for each in model]
        return both[0] if both[0] == both[1] else identity.of_settings("pair", {"of": both})
    for module in _modules(model)[:1]:
        # A MetaEmbed as modules of sentence-transformers makes the same vectors as before.
        if hasattr(module, "fingerprint_in") and (known := module.fingerprint_in(model)) is not None:
            return str(known)
    if hasattr(model, "state_dict"):
        settings = {name: getattr(model, name, None) for name in ("prompts", "similarity_fn_name", "default_prompt_name")}
        # PyLate's models write one of their two lengths into max_seq_length with every call.
        lengths = ("query_length", "document_length") if hasattr(model, "query_length") else ("max_seq_length",)
        known = ("query_prefix", "document_prefix", *lengths)
        settings |= {name: getattr(model, name) for name in known if hasattr(model, name)}
        return identity.of_module(type(model).__name__, model, settings)
    if isinstance(model, partial):
        bound = {"of": _fingerprint(model.func), "args": model.args, "keywords": model.keywords}
        return identity.of_settings("partial", bound)
    named = model if hasattr(model, "__qualname__") else type(model)
    return identity.of_settings(named.__qualname__, {"module": named.__module__})
