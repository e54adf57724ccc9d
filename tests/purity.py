"""An import-linter contract: which modules of a service may touch the outside world. Used by .importlinter.

Import-linter's own wildcards stand for whole names, so they cannot say "every module except service and http_*".
"""

from fnmatch import fnmatchcase

from grimp import ImportGraph
from importlinter import Contract, ContractCheck, fields, output


class PureModules(Contract):
    """Modules below `packages` import none of `impure`, nor a sibling whose name is in `shells`; shells may."""

    packages = fields.ListField(subfield=fields.StringField())
    shells = fields.ListField(subfield=fields.StringField())  # patterns of a module's last name
    impure = fields.ListField(subfield=fields.StringField())

    def check(self, graph: ImportGraph, verbose: bool) -> ContractCheck:  # noqa: ARG002, FBT001 - import-linter's shape
        """Looks at direct imports: each module on the way is judged itself."""
        broken = []
        for package in self.packages:
            for module in sorted({package} | graph.find_descendants(package)):
                if not self._is_shell(module):
                    broken += [(module, imported) for imported in self._impure_imports(graph, module, package)]
        return ContractCheck(kept=not broken, metadata={"broken": broken})

    def render_broken_contract(self, check: ContractCheck) -> None:
        """One line per import."""
        for module, imported in check.metadata["broken"]:
            output.print_error(f"{module} is pure, but imports {imported}")

    def _impure_imports(self, graph: ImportGraph, module: str, package: str) -> list[str]:
        return [
            imported
            for imported in sorted(graph.find_modules_directly_imported_by(module))
            if any(imported == name or imported.startswith(f"{name}.") for name in self.impure)
            or (imported.startswith(f"{package}.") and self._is_shell(imported))
        ]

    def _is_shell(self, module: str) -> bool:
        return any(fnmatchcase(part, shell) for part in module.split(".") for shell in self.shells)
