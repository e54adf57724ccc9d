"""The models in memory: one for all, one a tenant, and some classes of each tenant. Pure.

Bounded so that nobody is crowded out: a tenant has at most so many classes, its own that was unused longest goes; when
all together are too many, one of the tenant with the most goes. What goes is forgotten in storage, too.
"""

from collections import OrderedDict
from typing import Final

from saga.contract.ids import TenantId
from saga.graph.models import Model

MAX_MODELS: Final = 2_000  # of classes
MAX_CLASSES: Final = 256  # of one tenant
MAX_TENANTS: Final = 1_000
GLOBAL: Final = "all"


class Shelf:
    """Models by name."""

    def __init__(self) -> None:
        self.models: dict[str, Model] = {}
        self.dirty: dict[str, None] = {}  # not stored yet as they are
        self._dropped: dict[str, None] = {}
        self._classes: OrderedDict[TenantId, OrderedDict[str, None]] = OrderedDict()  # both: longest unused first
        self._count = 0  # of classes

    def levels(self, tenant: TenantId, agent_class: str) -> tuple[Model, ...]:
        """Models from the narrowest to the widest, made when new."""
        own = self._classes.get(tenant)
        if own is None:
            own = self._classes[tenant] = OrderedDict()
            while len(self._classes) > MAX_TENANTS:
                self._drop_tenant(next(iter(self._classes)))
        else:
            self._classes.move_to_end(tenant)
        wide = (self._model(f"tenant/{tenant}"), self._model(GLOBAL))
        if not agent_class:
            return wide
        name = f"class/{tenant}/{agent_class}"
        if name in own:
            own.move_to_end(name)
        else:
            self._shelve(own, name)
        return (self._model(name), *wide)

    def put(self, model: Model) -> None:
        """A model from storage, in the place of an older one."""
        kind, _, rest = model.name.partition("/")
        tenant = TenantId(rest.split("/", 1)[0])
        if kind != GLOBAL:
            own = self._classes.setdefault(tenant, OrderedDict())
            if kind == "class" and model.name not in own:
                self._shelve(own, model.name)
        self.models[model.name] = model
        while len(self._classes) > MAX_TENANTS:
            self._drop_tenant(next(iter(self._classes)))

    def drop(self, name: str) -> Model | None:
        """Forget a model; None when there is none of that name."""
        model = self.models.pop(name, None)
        self.dirty.pop(name, None)
        if model is not None and name.startswith("class/"):
            own = self._classes.get(TenantId(name.split("/", 2)[1]))
            if own is not None and name in own:
                del own[name]
                self._count -= 1
        return model

    def take_dropped(self) -> list[str]:
        """Names that went since the last time, and are not back."""
        gone = [name for name in self._dropped if name not in self.models]
        self._dropped.clear()
        return gone

    def _model(self, name: str) -> Model:
        model = self.models.get(name)
        if model is None:
            model = self.models[name] = Model(name)
        return model

    def _shelve(self, own: OrderedDict[str, None], name: str) -> None:
        own[name] = None
        self._count += 1
        if len(own) > MAX_CLASSES:
            self._crowd_out(own)
        if self._count > MAX_MODELS:
            self._crowd_out(max(self._classes.values(), key=len))

    def _crowd_out(self, classes: OrderedDict[str, None]) -> None:
        name = next(iter(classes))
        self._dropped[name] = None
        self.drop(name)
        if classes.pop(name, 0) is None:  # it was not made yet
            self._count -= 1

    def _drop_tenant(self, tenant: TenantId) -> None:
        for name in list(self._classes[tenant]):
            self._dropped[name] = None
            self.drop(name)
        del self._classes[tenant]
        self._dropped[f"tenant/{tenant}"] = None
        self.drop(f"tenant/{tenant}")

    def check(self) -> None:
        """Raise AssertionError where the books are wrong."""
        if self._count != sum(map(len, self._classes.values())) or self._count > MAX_MODELS:
            raise AssertionError(f"{self._count} classes counted, {sum(map(len, self._classes.values()))} shelved")
        if not set(self.dirty) <= set(self.models):
            raise AssertionError("a model that is not here is to be stored")
