/** Composites and scores of the operator over what was found. Pure. */
import { type Expression, holds, namesIn, parseExpression } from '../../config/expression.ts'
import type { Detection, Rule } from '../../config/rules.ts'
import type { Finding } from '../../message/verdict.ts'

/**
 * Findings with the scores that the operator gave their rules, and his composites that hold over
 * them, each after those that it names. A composite that leads back to itself holds never.
 */
export function weigh(findings: readonly Finding[], detection: Detection): readonly Finding[] {
  if (detection === last?.detection && last.composites.length === 0 && last.isPlain) return findings
  if (detection !== last?.detection) last = prepare(detection)
  const all = [...findings]
  const found = new Set(findings.map(({ rule }) => rule))
  for (const { rule, expression } of last.composites) {
    if (!holds(expression, found)) continue
    found.add(rule.name)
    const evidence = rule.describe === '' ? `It holds that ${wordsOf(expression)}.` : rule.describe
    all.push({ rule: rule.name, score: rule.score, evidence })
  }
  const { scores } = detection
  return all.map((finding) => {
    const score = Object.hasOwn(scores, finding.rule) ? scores[finding.rule] : undefined
    return score === undefined ? finding : { ...finding, score }
  })
}

type Prepared = {
  readonly detection: Detection
  readonly composites: readonly Composite[]
  /** No score of the operator's own. */
  readonly isPlain: boolean
}

type Composite = { readonly rule: Rule; readonly expression: Expression }

/** Of the last configuration: one is in force at a time. */
let last: Prepared | null = null

function prepare(detection: Detection): Prepared {
  return {
    detection,
    composites: inOrder(detection.rules),
    isPlain: Object.keys(detection.scores).length === 0,
  }
}

/** Each composite after those that it names; those in a circle are left out. */
function inOrder(rules: readonly Rule[]): readonly Composite[] {
  const waiting = new Map<string, Composite>()
  for (const rule of rules) {
    if (!rule.on || rule.look.kind !== 'composite') continue
    waiting.set(rule.name, { rule, expression: parseExpression(rule.look.expression) })
  }
  const ordered: Composite[] = []
  for (let moved = true; moved; ) {
    moved = false
    for (const [name, composite] of waiting) {
      if (namesIn(composite.expression).some((each) => waiting.has(each))) continue
      waiting.delete(name)
      ordered.push(composite)
      moved = true
    }
  }
  return ordered
}

function wordsOf(expression: Expression): string {
  switch (expression.kind) {
    case 'name':
      return `${expression.name} was found`
    case 'not':
      return `not (${wordsOf(expression.of)})`
    default:
      return expression.of.map(wordsOf).join(expression.kind === 'all' ? ' and ' : ' or ')
  }
}
