"""GeoJSON files read back: as RFC 7946 demands, and as polygons."""

import gzip
import json
from pathlib import Path

import shapely
from geojson_pydantic import FeatureCollection


def read_geojson(path: Path) -> list[dict]:
    """The features of a file that an independent reader of RFC 7946 accepts; each polygon is checked to be valid, and
    to have its outline counter-clockwise and its holes clockwise."""
    data = path.read_bytes()
    text = (gzip.decompress(data) if path.name.endswith(".gz") else data).decode()
    content = json.loads(text, parse_constant=lambda name: (_ for _ in ()).throw(ValueError(f"{name} is no JSON")))
    FeatureCollection.model_validate(content)
    for feature in content["features"]:
        for rings in [feature["geometry"]["coordinates"]]:
            assert all(ring[0] == ring[-1] and len(ring) >= 4 for ring in rings)
        found = polygon(feature)
        assert found.is_valid and found.exterior.is_ccw and not any(hole.is_ccw for hole in found.interiors)
    return content["features"]


def polygon(feature: dict) -> shapely.Polygon:
    return shapely.geometry.shape(feature["geometry"])
