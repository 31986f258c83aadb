/** Composites of the operator and scores of his own over what was found. Pure. */
import type { Detection } from '../../config/rules.ts'
import type { Finding } from '../../message/verdict.ts'

/**
 * Findings with the scores that the operator gave their rules, and the composites that hold. A
 * composite is found after the rules that it names; composites stand in the order of their names.
 */
export function weigh(findings: readonly Finding[], detection: Detection): readonly Finding[] {
  const { scores } = detection
  return findings.map((finding) => {
    const score = Object.hasOwn(scores, finding.rule) ? scores[finding.rule] : undefined
    return score === undefined ? finding : { ...finding, score }
  })
}
