"""trace_picture.py on a small trace."""

import contextlib
import io
import json
import pathlib
import sys
import tempfile
import unittest
import xml.etree.ElementTree
from unittest import mock

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import trace_picture


def _name(pid, tid, name):
    return {"ph": "M", "name": "thread_name", "pid": pid, "tid": tid, "args": {"name": name}}


def _span(category, name, pid, tid, begin, end, **args):
    return {
        "ph": "X",
        "cat": category,
        "name": name,
        "pid": pid,
        "tid": tid,
        "ts": begin,
        "dur": end - begin,
        "args": args,
    }


HOSTILE = "<script>&"
DOCUMENT = {
    "traceEvents": [
        _name(1, 1, "SM 0"),
        _name(1, 2, "launches"),
        _name(2, 1, "jobs 1"),
        _span("job", f"{HOSTILE} #7", 1, 1, 1000, 3000, job=7),
        _span("blocks", "conv", 1, 1, 1000, 2000, job=7),
        _span("blocks", "relu", 1, 1, 2000, 3000, job=7),
        _span("blocks", "conv", 1, 2, 1000, 3000, job=7),
        _span("job", f"{HOSTILE} #7", 2, 1, 500, 3000, job=7, status="OK"),
    ]
}


class TracePictureTest(unittest.TestCase):
    def test_a_job_is_drawn_where_it_ran_and_for_as_long_as_it_took(self):
        trace = trace_picture.Trace(DOCUMENT)
        self.assertEqual([trace.tracks[u] for u in trace.units], ["SM 0"])
        svg = trace_picture.draw([("one", trace), ("two", trace)])
        root = xml.etree.ElementTree.fromstring(svg)
        texts = [e.text for e in root.iter() if e.tag.endswith("text")]
        self.assertEqual(texts.count("one: mean 2.50 ms"), 1)
        self.assertEqual(texts.count(HOSTILE), 2)
        self.assertEqual(texts.count("2.50 ms"), 2)
        # Background; per panel one stay (its two kernels adjoin), waiting, running.
        rects = [e for e in root.iter() if e.tag.endswith("rect")]
        self.assertEqual(len(rects), 1 + 2 * 3)

    def test_what_is_no_trace_is_an_error(self):
        with tempfile.TemporaryDirectory() as folder:
            file = pathlib.Path(folder) / "bad.json"
            for text in ("{", "{}", '{"traceEvents": []}'):
                file.write_text(text)
                with mock.patch("sys.argv", ["trace_picture.py", str(file)]):
                    with contextlib.redirect_stderr(io.StringIO()) as said:
                        self.assertEqual(trace_picture.main(), 1)
                self.assertIn("trace_picture.py: ", said.getvalue())

    def test_titles_and_files(self):
        with tempfile.TemporaryDirectory() as folder:
            file, out = pathlib.Path(folder) / "a.json", pathlib.Path(folder) / "a.svg"
            file.write_text(json.dumps(DOCUMENT))
            with mock.patch("sys.argv", ["trace_picture.py", f"first={file}", "-o", str(out)]):
                self.assertEqual(trace_picture.main(), 0)
            self.assertIn("first: mean", out.read_text())


if __name__ == "__main__":
    unittest.main()
