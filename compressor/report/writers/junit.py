"""junit.xml, for CI servers: one test case per rule of acceptance."""

from __future__ import annotations

from xml.etree import ElementTree

from compressor.report.schema import Report
from compressor.report.writers.base import Samples, Writer
from compressor.report.writers.tables import rule_rows, verdict


class JunitWriter(Writer):
    """A failed rule is a failed test case, with required and measured value."""

    name = "junit.xml"

    def render(self, report: Report, samples: Samples) -> str:
        rules = rule_rows(report)
        counts = {"tests": str(len(rules)), "failures": str(sum(not rule.passed for rule in rules)), "errors": "0"}
        root = ElementTree.Element("testsuites", counts)
        suite = ElementTree.SubElement(root, "testsuite", {"name": "compressor", **counts})
        for rule in rules:
            case = ElementTree.SubElement(suite, "testcase", {"classname": "compressor.accept", "name": rule.name})
            message = f"required {rule.required}, measured {rule.measured}"
            if rule.passed:
                ElementTree.SubElement(case, "system-out").text = f"{message}: {rule.text}"
            else:
                ElementTree.SubElement(case, "failure", {"message": message}).text = rule.text
        ElementTree.SubElement(suite, "system-out").text = verdict(report)
        ElementTree.indent(root)
        return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"
