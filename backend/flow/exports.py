"""Names of ``.flow`` projects that ``flashflow.backend`` exports; loaded apart, since most starts need none."""

from flashflow.backend.flow.actions import ActionResult as ActionResult
from flashflow.backend.flow.data_reader import SourceData as SourceData
from flashflow.backend.flow.language.data_sources import SOURCES as SOURCES, Unit as Unit
from flashflow.backend.flow.language.declarations import (
    Bell as Bell,
    Chart as Chart,
    Constant as Constant,
    Container as Container,
    DataSource as DataSource,
    Element as Element,
    Expression as Expression,
    Field as Field,
    Form as Form,
    Model as Model,
    Page as Page,
    Project as Project,
    SettingsPanel as SettingsPanel,
    Sort as Sort,
    Table as Table,
    TextElement as TextElement,
)
from flashflow.backend.flow.language.errors import FlowError as FlowError
from flashflow.backend.flow.language.expressions import as_text as as_text, evaluate as evaluate
from flashflow.backend.flow.project import FlowProject as FlowProject, Submitted as Submitted
