"""The manual pages, as an admin reads them on the host."""

from .case import HostCase

PAGES = (("8", "popa3d"), ("5", "popa3d.toml"), ("7", "popa3d-events"))


class ManualPages(HostCase):
    def test_each_is_found_and_says_what_it_is_about(self):
        for section, name in PAGES:
            with self.subTest(name):
                page = self.host.run("man", section, name, environment=("MANPAGER=cat", "MANWIDTH=80")).output
                self.assertIn(f"{name.upper()}({section})", page)
                self.assertRegex(page, rf"(?m)^ +{name} (—|–|-) ")

    def test_each_is_formatted_without_a_warning(self):
        for section, name in PAGES:
            with self.subTest(name):
                file = self.host.run("man", "-w", section, name).output.strip()
                formatted = self.host.run("man", "--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z", file)
                self.assertEqual(formatted.errors, "")
                self.assertTrue(formatted.output)
