"""Single entries of a store: put, get, count. Thin collective forms of `storage`."""

from __future__ import annotations

from gamwarm.entries import Encoded, EntryStore, PutOutcome, Refused, encode
from gamwarm.identity import check_descriptor_key, check_exact_key
from gamwarm.interrupts import critical
from gamwarm.records import BlockRecord, FitArtifact, Producer
from gamwarm.store.arguments import check_each, malformed, wrong_type
from gamwarm.store.collective import Ranks
from gamwarm.store.keep import content_of
from gamwarm.store.lookup import best_artifact
from gamwarm.store.transactions import Writes

__all__ = ["Contents"]


class Contents:
    """The part of `WarmStartStore` that puts and gets single entries. Collective."""

    _foreign: Producer | None
    _producer: Producer
    _ranks: Ranks
    _writes: Writes

    @property
    def _file(self) -> EntryStore:
        raise NotImplementedError

    @critical
    def put_record(self, record: BlockRecord | None, *, each: bool = False) -> PutOutcome:
        """File one exact record if the gates let it pass. Collective; ``each`` as in `keep`."""
        each, wrong = check_each(each)
        if not each:
            return self._put_together("put_record", record, BlockRecord, wrong)
        error = None if record is None else wrong_type("record", record, BlockRecord)
        encoded = None if record is None or error is not None else encode(record, self._producer)
        self._ranks.agree_round("put_record", error)

        def put_all(entries: list[Encoded | Refused | None]) -> list[PutOutcome | None]:
            return [None if entry is None else self._file.put_encoded(entry) for entry in entries]

        outcome = self._ranks.serve_each("put_record", encoded, put_all, None, self._writes.run)
        if record is None and outcome is None:
            return PutOutcome(reason="nothing to put on this rank")
        return self._put(outcome)

    @critical
    def put_artifact(self, artifact: FitArtifact) -> PutOutcome:
        """File one artifact. Collective: all ranks pass the same."""
        return self._put_together("put_artifact", artifact, FitArtifact)

    def _put_together(
        self,
        operation: str,
        entry: BlockRecord | FitArtifact | None,
        kind: type,
        wrong: BaseException | None = None,
    ) -> PutOutcome:
        error = wrong or wrong_type(operation.removeprefix("put_"), entry, kind)
        encoded: Encoded | Refused = Refused("", "")
        if error is None and entry is not None:
            encoded = encode(entry, self._producer)
        self._ranks.agree_equal(operation, content_of(encoded), error)
        return self._put(self._writes.run(operation, lambda: self._file.put_encoded(encoded), None))

    def _put(self, outcome: PutOutcome | None) -> PutOutcome:
        if outcome is None:
            return PutOutcome(reason=self._writes.reason_not_written())
        self._writes.track(outcome)
        return outcome

    @critical
    def get_record(self, key: str) -> BlockRecord | None:
        """Return the record that this engine means under an exact key, or None. Collective."""
        self._ranks.agree_equal("get_record", key, malformed(check_exact_key, key))
        found = self._ranks.at_root("get_record", lambda: self._file.find_record(key, self._foreign), None)
        return None if found is None else found.record

    @critical
    def get_artifact(self, descriptor_key: str) -> FitArtifact | None:
        """Return the best parent under a descriptor key, or None. Collective.

        The key may be a strict or a structural one; an artifact whose own key it is comes first.
        """
        self._ranks.agree_equal("get_artifact", descriptor_key, malformed(check_descriptor_key, descriptor_key))

        found = self._ranks.at_root("get_artifact", lambda: best_artifact(self._file, descriptor_key), None)
        return None if found is None else found.artifact

    @critical
    def keys(self) -> list[str]:
        """Return the exact keys that have a record, sorted. Collective."""
        self._ranks.agree("keys", None)
        return self._ranks.at_root("keys", lambda: self._file.keys(), [])

    @critical
    def entry_ids(self) -> set[str]:
        """Return the entry ids of all intact entries: the file's logical content. Collective."""
        self._ranks.agree("entry_ids", None)
        return self._ranks.at_root("entry_ids", lambda: self._file.entry_ids(), set())

    @critical
    def __len__(self) -> int:
        """Return the number of entries. Collective."""
        self._ranks.agree("len", None)
        return self._ranks.at_root("len", lambda: len(self._file), 0)

    def __bool__(self) -> bool:
        return True

    @property
    @critical
    def generation(self) -> int:
        """Number of committed transactions. Collective."""
        self._ranks.agree("generation", None)
        return self._ranks.at_root("generation", lambda: self._file.generation, 0)
