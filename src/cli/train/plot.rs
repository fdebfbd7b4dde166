//! A picture of a training.

use crate::cli::exit::{Exit, Failure, Result};
use crate::cli::report::number;
use plotters::prelude::*;
use std::fmt::Display;

/// Points of a line at most: more would not be seen.
const POINTS: usize = 1000;

/// SVG of the inertia by iteration and of how many vectors each codeword is nearest to, the most used first.
pub fn training(curve: &[f64], counts: &[u64]) -> Result<String> {
    // Relative to the largest, so that no axis is beyond f64. What is infinite is not shown.
    let largest = curve.iter().copied().filter(|value| value.is_finite()).fold(0.0, f64::max);
    let part = |value: f64| if largest > 0.0 { value / largest } else { value };
    let inertia: Vec<(f64, f64)> =
        thinned(curve.len()).map(|i| (i as f64, part(curve[i]))).filter(|(_, value)| value.is_finite()).collect();
    let mut usage = counts.to_vec();
    usage.sort_unstable_by(|a, b| b.cmp(a));
    let usage: Vec<(f64, f64)> = thinned(usage.len()).map(|i| (i as f64, usage[i] as f64)).collect();

    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, (960, 420)).into_drawing_area();
        area.fill(&WHITE).map_err(failed)?;
        let (left, right) = area.split_horizontally(480);
        draw(&left, &format!("inertia, in units of {}", number(largest)), "iteration", &inertia)?;
        draw(&right, "vectors of each codeword", "codewords, most used first", &usage)?;
        area.present().map_err(failed)?;
    }
    Ok(svg)
}

/// Some numbers below `len`, evenly, the first and the last among them.
fn thinned(len: usize) -> impl Iterator<Item = usize> {
    let points = len.min(POINTS);
    (0..points)
        .map(move |i| if points < 2 { 0 } else { (i as u128 * (len as u128 - 1) / (points as u128 - 1)) as usize })
}

fn draw(
    area: &DrawingArea<SVGBackend<'_>, plotters::coord::Shift>,
    title: &str,
    below: &str,
    line: &[(f64, f64)],
) -> Result<()> {
    // Never empty ranges.
    let end = line.last().map_or(1.0, |&(x, _)| x.max(1.0));
    let top = line.iter().fold(0.0, |top: f64, &(_, y)| top.max(y));
    let top = if top > 0.0 { 1.05 * top } else { 1.0 };
    let mut chart = ChartBuilder::on(area)
        .caption(title, ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(56)
        .build_cartesian_2d(0.0..end, 0.0..top)
        .map_err(failed)?;
    chart.configure_mesh().x_desc(below).light_line_style(WHITE).draw().map_err(failed)?;
    chart.draw_series(LineSeries::new(line.iter().copied(), BLUE.stroke_width(2))).map_err(failed)?;
    Ok(())
}

fn failed(error: impl Display) -> Failure {
    Failure::new(Exit::Failed, format!("the plot cannot be drawn: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_keep_both_ends() {
        for len in [0, 1, 2, 999, 1000, 1001, 70_000] {
            let points: Vec<usize> = thinned(len).collect();
            assert!(points.len() == len.min(POINTS) && points.is_sorted_by(|a, b| a < b), "{len}");
            assert!(
                points.first().is_none_or(|&first| first == 0) && points.last().is_none_or(|&last| last == len - 1)
            );
        }
    }

    #[test]
    fn every_curve_is_drawn_whatever_its_numbers() {
        let infinite = f64::INFINITY;
        let curves =
            [vec![], vec![0.0], vec![infinite], vec![f64::MAX, 1.0], vec![5e-324, 0.0], vec![3.0, infinite, 1.0]];
        for curve in &curves {
            for counts in [vec![], vec![0], vec![u64::MAX, 1]] {
                let svg = training(curve, &counts).map_err(|failure| failure.error).unwrap();
                assert!(svg.starts_with("<svg") && svg.ends_with("</svg>\n"), "{svg}");
                assert!(!svg.contains("NaN") && !svg.contains("inf,"), "{svg}");
            }
        }
    }
}
