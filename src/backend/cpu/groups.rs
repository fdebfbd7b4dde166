//! Groups of panels whose largest scores a pass keeps, lane by lane, so that the candidates of a row it leaves open do not
//! cost another pass: a maximum that reaches the threshold stands for the codewords of one lane in a group.

use std::ops::Range;

/// Groups of panels, at most: the maxima of a row are as many registers. Half as many took 6 % longer with 16,384
/// codewords of 256 dimensions, where a hit then stands for 16 codewords; twice and four times as many, no less.
const GROUPS: usize = 128;

/// How panels are grouped.
#[derive(Clone, Copy, Debug)]
pub(super) struct Groups {
    /// Panels of a group.
    pub panels: usize,
    /// Number of groups.
    pub count: usize,
}

impl Groups {
    /// Of so many panels, for a kernel that looks at `at_once` of them at a time: groups are whole multiples of these.
    pub fn of(panels: usize, at_once: usize) -> Groups {
        let group = panels.div_ceil(GROUPS).max(1).next_multiple_of(at_once);
        Groups { panels: group, count: panels.div_ceil(group) }
    }

    /// Of every share of the panels, whole groups, and every tile the lines that the groups of the share have in `maxima`,
    /// `[tiles][groups][line]`.
    pub fn split<'a, Score>(
        self,
        maxima: &'a mut [Score],
        shares: &[Range<usize>],
        line: usize,
    ) -> Vec<Vec<&'a mut [Score]>> {
        let mut split: Vec<Vec<_>> =
            shares.iter().map(|_| Vec::with_capacity(maxima.len() / (self.count * line))).collect();
        for mut rest in maxima.chunks_exact_mut(self.count * line) {
            for (share, lines) in shares.iter().zip(&mut split) {
                let (mine, others) = rest.split_at_mut(share.len().div_ceil(self.panels) * line);
                lines.push(mine);
                rest = others;
            }
        }
        split
    }

    /// Writes the labels that hits stand for, ascending. A hit is a group and a bit for every lane; a panel is `width`
    /// codewords, one register of `lanes` after the other.
    pub fn labels(self, hits: &[(u32, u32)], labels: &[u32], lanes: usize, width: usize, found: &mut Vec<u32>) {
        found.clear();
        for &(group, hit_lanes) in hits {
            let first = group as usize * self.panels * width;
            let end = (first + self.panels * width).min(labels.len());
            for register in (first..end).step_by(lanes) {
                let in_register = &labels[register..end.min(register + lanes)];
                let hit = |&(lane, _): &(usize, &u32)| hit_lanes >> lane & 1 == 1;
                found.extend(in_register.iter().enumerate().filter(hit).map(|(_, &label)| label));
            }
        }
    }
}
