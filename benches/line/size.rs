//! The size of the program as it is shipped.

use super::parameters::Parameters;
use super::report::{Report, number};
use super::{Measured, machine};

/// Stripped, with everything in it.
const LIMIT_MIB: f64 = 10.0;

pub(super) fn measure(parameters: &Parameters) -> Measured<Report> {
    let program = parameters.program()?;
    let bytes = std::fs::metadata(program)?.len();
    let mib = bytes as f64 / f64::from(1 << 20);
    let mut report = Report::new("size", &[machine::plimsoll(program)]);
    let row = vec!["`plimsoll`".to_owned(), format!("{bytes}"), number(mib, "MiB")];
    report.table(&["program", "bytes", "size"], &[row]);
    report.line("size of the stripped program", mib, LIMIT_MIB, "MiB");
    Ok(report)
}
