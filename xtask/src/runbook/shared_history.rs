//! One history for several folders: which rows belong to this one.

use crate::Context;
use crate::migration::history::Applied;
use crate::migration::source::Folder;
use crate::ui;

/// Leaves out the rows of other folders' migrations, if the folder shares its history, and says how many.
pub(crate) fn leave_out_others(ctx: &Context, folder: &Folder, history: &mut Vec<Applied>) {
    let left_out = folder.leave_out_others(history);
    if let (Some(first), Some(last)) = (left_out.first(), left_out.last()) {
        let rows = ui::plural(left_out.len() as u64, "migration");
        let place = folder.shown_as.display();
        ctx.ui.info(
            "Ignored",
            format_args!("{rows} in the history without a file in `{place}`: {first} to {last}"),
        );
    }
}
