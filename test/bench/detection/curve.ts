/** What scores of labelled mail are worth: the curve of receiver operating characteristics and its numbers. */
import type { Class, Labelled } from './set.ts'

export type Scored = Pick<Labelled, 'class' | 'isSpam' | 'path'> & {
  readonly score: number
  readonly rules: readonly string[]
}

/** Part of ham above a threshold, part of spam above it. */
export type Point = {
  readonly falsePositives: number
  readonly recall: number
  readonly above: number
}

/** From the highest score down; one point for each score that occurs. */
export function curveOf(scored: readonly Scored[]): readonly Point[] {
  const spamCount = scored.filter(({ isSpam }) => isSpam).length
  const hamCount = scored.length - spamCount
  const sorted = scored.toSorted((a, b) => b.score - a.score)
  const points: Point[] = [{ falsePositives: 0, recall: 0, above: Number.POSITIVE_INFINITY }]
  let spam = 0
  let ham = 0
  for (const [index, { isSpam, score }] of sorted.entries()) {
    if (isSpam) spam += 1
    else ham += 1
    if (sorted[index + 1]?.score === score) continue
    points.push({ falsePositives: ham / hamCount, recall: spam / spamCount, above: score })
  }
  return points
}

/** Area under the curve; equal scores of spam and ham count half. */
export function areaOf(points: readonly Point[]): number {
  let area = 0
  for (const [index, { falsePositives, recall }] of points.entries()) {
    const before = points[index - 1]
    if (before === undefined) continue
    area += ((falsePositives - before.falsePositives) * (recall + before.recall)) / 2
  }
  return area
}

/** The best recall with at most this part of ham taken for spam, and from which score on. */
export function recallAt(points: readonly Point[], falsePositives: number): Point {
  const allowed = points.filter((point) => point.falsePositives <= falsePositives)
  return allowed.reduce((best, point) => (point.recall > best.recall ? point : best))
}

export type Confusion = Readonly<Record<Class, { readonly taken: number; readonly all: number }>>

/** Of each class, how many have at least this score. */
export function confusionAt(scored: readonly Scored[], threshold: number): Confusion {
  const of = (kind: Class) => {
    const all = scored.filter((one) => one.class === kind)
    return { taken: all.filter(({ score }) => score >= threshold).length, all: all.length }
  }
  return { 'easy ham': of('easy ham'), 'hard ham': of('hard ham'), spam: of('spam') }
}

/** The part of what is taken for spam that is spam. */
export function precisionOf({ spam, ...ham }: Confusion): number {
  const wrong = ham['easy ham'].taken + ham['hard ham'].taken
  return spam.taken + wrong === 0 ? 1 : spam.taken / (spam.taken + wrong)
}
