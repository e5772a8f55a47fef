//! Certificates, as sessions would find them.

use super::finding::Finding;
use crate::monitor::report_certificates;
use crate::settings::Settings;

pub(super) fn look(settings: &Settings) -> Vec<Finding> {
    let report = report_certificates(settings);
    let usable = report.usable.into_iter().map(Finding::fine);
    let unseen = report.unseen.into_iter().map(Finding::unseen);
    let warnings = report.warnings.into_iter().map(|text| Finding::warning(text, ""));
    let mistakes = report.mistakes.into_iter().map(|text| Finding::error(text, ""));
    usable.chain(unseen).chain(warnings).chain(mistakes).collect()
}
