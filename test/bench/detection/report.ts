/** What the bench writes: tables as text, the curves as SVG. */
import {
  areaOf,
  type Confusion,
  confusionAt,
  curveOf,
  type Point,
  precisionOf,
  recallAt,
  type Scored,
} from './curve.ts'
import { CLASSES } from './set.ts'

/** One judge in one state: what it said of the mails of the judged half. */
export type Run = {
  readonly name: string
  readonly version: string
  readonly isTrained: boolean
  /** From which score on it calls a mail spam by default. */
  readonly threshold: number
  readonly scored: readonly (Scored & { readonly weights?: readonly number[] })[]
}

/** The part of ham that may be taken for spam. */
const FALSE_POSITIVES = 0.001

export type Numbers = {
  readonly area: number
  readonly recall: number
  readonly at: Point
  readonly confusion: Confusion
}

export function numbersOf({ scored, threshold }: Run): Numbers {
  const points = curveOf(scored)
  const at = recallAt(points, FALSE_POSITIVES)
  return {
    area: areaOf(points),
    recall: at.recall,
    at,
    confusion: confusionAt(scored, threshold),
  }
}

export function tableOf(runs: readonly Run[]): string {
  const head = [
    'judge',
    'AUC',
    'recall at 0.1 % FP',
    'from score',
    'recall at 0.5 % FP',
    'its own threshold',
    'recall',
    'precision',
    ...CLASSES.map((kind) => `taken: ${kind}`),
  ]
  const rows = runs.map((run) => {
    const { area, recall, at, confusion } = numbersOf(run)
    const { spam } = confusion
    return [
      `${run.name}, ${run.isTrained ? 'trained' : 'untrained'}`,
      area.toFixed(4),
      percent(recall),
      at.above === Number.POSITIVE_INFINITY ? '-' : at.above.toFixed(1),
      percent(recallAt(curveOf(run.scored), 0.005).recall),
      String(run.threshold),
      percent(spam.taken / spam.all),
      percent(precisionOf(confusion)),
      ...CLASSES.map((kind) => `${confusion[kind].taken} of ${confusion[kind].all}`),
    ]
  })
  return markdown(head, rows)
}

/** Of each rule, how many mails of each class it hit, and what it weighed; the most hits first. */
export function rulesOf({ scored }: Run): string {
  const rules = new Map<string, { readonly hits: Map<string, number>; sum: number; all: number }>()
  for (const { class: kind, rules: names, weights } of scored) {
    for (const [index, name] of names.entries()) {
      const rule = rules.get(name) ?? { hits: new Map<string, number>(), sum: 0, all: 0 }
      rules.set(name, rule)
      rule.hits.set(kind, (rule.hits.get(kind) ?? 0) + 1)
      rule.sum += weights?.[index] ?? 0
      rule.all += 1
    }
  }
  const rows = [...rules]
    .toSorted(([a, one], [b, other]) => other.all - one.all || (a < b ? -1 : 1))
    .map(([name, { hits, sum, all }]) => [
      name,
      (sum / all).toFixed(1),
      ...CLASSES.map((kind) => String(hits.get(kind) ?? 0)),
      percent((hits.get('spam') ?? 0) / all),
    ])
  return markdown(['rule', 'mean score', ...CLASSES, 'of its hits spam'], rows)
}

function percent(part: number): string {
  return `${(100 * part).toFixed(2)} %`
}

function markdown(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]) => `| ${cells.join(' | ')} |`
  const rule = `|---|${'---:|'.repeat(head.length - 1)}`
  return [line(head), rule, ...rows.map(line)].join('\n')
}

const WIDTH = 720
const HEIGHT = 480
const [LEFT, RIGHT, TOP, BOTTOM] = [60, 20, 20, 50] as const
/** Parts of ham at both ends of the logarithmic axis. */
const [LEAST, MOST] = [0.0003, 1] as const
const COLOURS: readonly string[] = [
  '#0b6e4f',
  '#b5442c',
  '#2f5d8a',
  '#7fb39f',
  '#dfa394',
  '#9db7d3',
]

/** Recall over false positives; the axis of these is logarithmic, for what matters is its left end. */
export function curvesOf(runs: readonly Run[]): string {
  const x = (part: number): number =>
    LEFT +
    ((Math.log10(Math.max(LEAST, part)) - Math.log10(LEAST)) /
      (Math.log10(MOST) - Math.log10(LEAST))) *
      (WIDTH - LEFT - RIGHT)
  const y = (recall: number): number => TOP + (1 - recall) * (HEIGHT - TOP - BOTTOM)
  const text = (at: readonly [number, number], words: string, anchor = 'middle'): string =>
    `<text x="${at[0].toFixed(1)}" y="${at[1].toFixed(1)}" text-anchor="${anchor}">${words}</text>`
  const line = (from: readonly [number, number], to: readonly [number, number]): string =>
    `<line x1="${from[0].toFixed(1)}" y1="${from[1].toFixed(1)}" x2="${to[0].toFixed(1)}" y2="${to[1].toFixed(1)}" stroke="#ddd"/>`
  const parts = [0.001, 0.01, 0.1, 1].flatMap((part) => [
    line([x(part), y(0)], [x(part), y(1)]),
    text([x(part), HEIGHT - BOTTOM + 18], `${100 * part} %`),
  ])
  const recalls = [0, 0.2, 0.4, 0.6, 0.8, 1].flatMap((recall) => [
    line([x(LEAST), y(recall)], [x(MOST), y(recall)]),
    text([LEFT - 8, y(recall) + 4], `${Math.round(100 * recall)} %`, 'end'),
  ])
  const curves = runs.map((run, index) => {
    // Steps: what is not allowed yet takes no more spam.
    let before = 0
    const path = curveOf(run.scored).map(({ falsePositives, recall }, place) => {
      const step = `${place === 0 ? 'M' : 'L'}${x(falsePositives).toFixed(1)} ${y(before).toFixed(1)} L${x(falsePositives).toFixed(1)} ${y(recall).toFixed(1)}`
      before = recall
      return step
    })
    const dash = run.isTrained ? '' : ' stroke-dasharray="5 4"'
    return `<path d="${path.join(' ')}" fill="none" stroke="${COLOURS[index % COLOURS.length]}" stroke-width="2"${dash}/>`
  })
  const legend = runs.map((run, index) => {
    const at = HEIGHT - BOTTOM - 20 - 18 * (runs.length - 1 - index)
    const words = `${run.name}, ${run.isTrained ? 'trained' : 'untrained'}`
    return `<rect x="${WIDTH - 200}" y="${at - 9}" width="12" height="10" fill="${COLOURS[index % COLOURS.length]}"/>${text([WIDTH - 182, at], words, 'start')}`
  })
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${HEIGHT}" font-family="sans-serif" font-size="12">`,
    `<rect width="${WIDTH}" height="${HEIGHT}" fill="#fff"/>`,
    ...parts,
    ...recalls,
    ...curves,
    ...legend,
    text([(LEFT + WIDTH - RIGHT) / 2, HEIGHT - 10], 'ham taken for spam (logarithmic)'),
    `<text x="16" y="${HEIGHT / 2}" text-anchor="middle" transform="rotate(-90 16 ${HEIGHT / 2})">spam recognised</text>`,
    '</svg>',
    '',
  ].join('\n')
}
