"""Naming a fit: fingerprints, matrix digests, exact key, term identities, descriptor."""

from gamwarm.identity.components import Components, Label
from gamwarm.identity.descriptor import (
    FitDescriptor,
    check_descriptor_key,
    descriptor_key,
    relation_keys,
    term_identity,
)
from gamwarm.identity.fingerprint import Fingerprinter
from gamwarm.identity.fit_problem import FitProblem
from gamwarm.identity.key import EXCLUDED, check_exact_key, check_nuisance, component_labels, exact_key
from gamwarm.identity.leaves import positive_zeros
from gamwarm.identity.matrices import matrix_digest
from gamwarm.identity.values import NamedFamily, family, write_value

__all__ = [
    "EXCLUDED",
    "Components",
    "Fingerprinter",
    "FitDescriptor",
    "FitProblem",
    "Label",
    "NamedFamily",
    "check_descriptor_key",
    "check_exact_key",
    "check_nuisance",
    "component_labels",
    "descriptor_key",
    "exact_key",
    "family",
    "matrix_digest",
    "positive_zeros",
    "relation_keys",
    "term_identity",
    "write_value",
]
