/** How well spam is told from ham on part of the labelled mail: what must not become worse. */
import { afterAll, describe, expect, test } from 'bun:test'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import {
  areaOf,
  confusionAt,
  curveOf,
  precisionOf,
  recallAt,
  type Scored,
} from './bench/detection/curve.ts'
import { ours } from './bench/detection/ours.ts'
import { type Labelled, labelledMail } from './bench/detection/set.ts'

const scratch = mkdtempSync(join(tmpdir(), 'postern-detection-'))
afterAll(() => rmSync(scratch, { recursive: true, force: true }))

/** The whole set takes minutes (test/bench/detection): every fourth mail of each half. */
const PART = 4
/** Measured 0.9993, 0.95 and 0.989. */
const AREA_LEAST = 0.995
const RECALL_LEAST = 0.88
const UNTAUGHT_AREA_LEAST = 0.97

const all = labelledMail()
const partOf = (half: Labelled['half']): readonly Labelled[] =>
  all.filter((mail) => mail.half === half).filter((_, index) => index % PART === 0)

async function judged(name: string, train: readonly Labelled[]): Promise<readonly Scored[]> {
  const mails = partOf('test')
  const peer = await ours(join(scratch, name), train)
  try {
    const said = await peer.judge(mails)
    return mails.map((mail, index) => ({ ...mail, score: 0, rules: [], ...said[index] }))
  } finally {
    await peer.stop()
  }
}

test('taught by a quarter of one half, spam of the other is told from ham', async () => {
  const scored = await judged('taught', partOf('train'))
  const points = curveOf(scored)
  expect(areaOf(points)).toBeGreaterThanOrEqual(AREA_LEAST)
  expect(recallAt(points, 0.002).recall).toBeGreaterThanOrEqual(RECALL_LEAST)
  // At the score that marks a mail, and at the one that holds it.
  expect(precisionOf(confusionAt(scored, 6))).toBeGreaterThanOrEqual(0.98)
  expect(confusionAt(scored, 8)['easy ham'].taken).toBe(0)
}, 120_000)

test('untaught, the rules alone tell most', async () => {
  const scored = await judged('untaught', [])
  expect(areaOf(curveOf(scored))).toBeGreaterThanOrEqual(UNTAUGHT_AREA_LEAST)
  expect(confusionAt(scored, 8)['easy ham'].taken).toBe(0)
}, 120_000)

describe('a curve', () => {
  const scored = (pairs: readonly (readonly [number, boolean])[]): readonly Scored[] =>
    pairs.map(([score, isSpam]) => ({
      path: '',
      class: isSpam ? 'spam' : 'easy ham',
      isSpam,
      score,
      rules: [],
    }))

  test('of perfect scores has an area of 1, of equal ones a half, of reversed ones 0', () => {
    const area = (pairs: readonly (readonly [number, boolean])[]) => areaOf(curveOf(scored(pairs)))
    expect(
      area([
        [9, true],
        [8, true],
        [1, false],
        [0, false],
      ]),
    ).toBe(1)
    expect(
      area([
        [1, true],
        [1, true],
        [1, false],
        [1, false],
      ]),
    ).toBe(0.5)
    expect(
      area([
        [0, true],
        [9, false],
      ]),
    ).toBe(0)
    expect(
      area([
        [5, true],
        [5, false],
        [9, true],
        [1, false],
      ]),
    ).toBe(0.875)
  })

  test('gives the recall that so many false positives allow, and no more', () => {
    const points = curveOf(
      scored([
        [9, true],
        [8, false],
        [7, true],
        [7, false],
        [6, true],
        [1, false],
        [0, false],
      ]),
    )
    expect(recallAt(points, 0).recall).toBeCloseTo(1 / 3)
    expect(recallAt(points, 0.25).recall).toBeCloseTo(1 / 3)
    expect(recallAt(points, 0.5).recall).toBe(1)
    expect(recallAt(points, 0.5).above).toBe(6)
  })
})
