from synthbook.core.units import *  # noqa
from synthbook.core.schema import Schema


def unit_of(schema: Schema, rows: int) -> str:
    """The unit of privacy in words."""
    return "one record" if schema.entity is None else f"one {schema.entity}, with at most {rows} rows"
