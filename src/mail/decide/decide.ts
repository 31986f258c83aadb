/** (inspection, policy) to the verdict of one recipient. Pure: same mail, same verdict, on every node. */
import type { Finding, Inspection, Verdict, VerdictKind } from '../../message/verdict.ts'
import type { Policy } from './policy.ts'

/**
 * A missing answer defers, unless the rest already refuses: unknown is not clean, but a refusal
 * cannot become a delivery by waiting.
 */
export function decide({ findings, unknowns }: Inspection, policy: Policy): Verdict {
  const score = scoreOf(findings)
  return {
    kind: kindOf(score, unknowns.length > 0, policy),
    score,
    rules: findings
      .filter((finding) => finding.score > 0)
      .toSorted((a, b) => b.score - a.score)
      .map((finding) => finding.rule),
    unknown: unknowns.map((unknown) => unknown.inspector),
  }
}

function kindOf(score: number, silent: boolean, { hold, reject }: Policy): VerdictKind {
  if (score >= reject) return 'reject'
  if (silent) return 'defer'
  return score >= hold ? 'hold' : 'deliver'
}

/** Hundredths: 0.1 and 0.2 must reach a threshold of 0.3. */
function scoreOf(findings: readonly Finding[]): number {
  return Math.round(findings.reduce((sum, finding) => sum + finding.score, 0) * 100) / 100
}
