"""Names of ``.flow`` projects that ``flashflow.backend`` exports; loaded apart, since most starts need none."""

from flashflow.backend.flow.actions import ActionResult as ActionResult
from flashflow.backend.flow.data_reader import SourceData as SourceData
from flashflow.backend.flow.language import declarations as declarations
from flashflow.backend.flow.language.data_sources import SOURCES as SOURCES, Unit as Unit
from flashflow.backend.flow.language.errors import FlowError as FlowError
from flashflow.backend.flow.language.expressions import as_text as as_text, evaluate as evaluate
from flashflow.backend.flow.project import FlowProject as FlowProject, Submitted as Submitted
