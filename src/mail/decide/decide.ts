/** (inspection, policy, listing) to the verdict of one recipient. Pure: same mail, same verdict, on every node. */
import type { Finding, Inspection, Verdict, VerdictKind } from '../../message/verdict.ts'
import type { Listing } from './listing.ts'
import type { Policy } from './policy.ts'

/** What an allowed client may not send either: content that does harm. */
const HARMFUL = /^(?:EICAR$|VIRUS_)/

/** What a domain asks for where its policy is to be done (RFC 9989 section 4.7): at least this. */
const ENFORCED: ReadonlyMap<string, 'hold' | 'reject'> = new Map([
  ['DMARC_REJECT', 'reject'],
  ['DMARC_QUARANTINE', 'hold'],
])

/**
 * A missing answer defers or holds, or lets on where the operator said so of an engine, unless the
 * rest already refuses: unknown is not clean, but a refusal cannot become a delivery by waiting. A block refuses whatever the score; an allowance takes the
 * score away, and leaves harm and unknowns as they are.
 */
export function decide(
  { findings, unknowns }: Inspection,
  policy: Policy,
  listing: Listing | null,
): Verdict {
  const score = scoreOf(findings)
  const counted =
    listing?.kind === 'allow' ? scoreOf(findings.filter(({ rule }) => HARMFUL.test(rule))) : score
  const asked = policy.enforce && listing?.kind !== 'allow' ? askedFor(findings) : null
  const rules = findings
    .filter((finding) => finding.score > 0)
    .toSorted((a, b) => b.score - a.score)
    .map((finding) => finding.rule)
  return {
    kind:
      listing?.kind === 'block' || asked === 'reject'
        ? 'reject'
        : kindOf(counted, unknowns, policy, asked === 'hold'),
    score,
    rules: listing === null ? rules : [listing.finding.rule, ...rules],
    unknown: unknowns.map((unknown) => unknown.inspector),
  }
}

function kindOf(
  score: number,
  unknowns: Inspection['unknowns'],
  { hold, reject }: Policy,
  mustHold: boolean,
): VerdictKind {
  if (score >= reject) return 'reject'
  const outages = new Set(unknowns.map(({ outage = 'defer' }) => outage))
  if (outages.has('defer')) return 'defer'
  return score >= hold || mustHold || outages.has('hold') ? 'hold' : 'deliver'
}

/** The strictest that an author's domain asks for; null: nothing. */
function askedFor(findings: readonly Finding[]): 'hold' | 'reject' | null {
  const asked = findings.flatMap(({ rule }) => ENFORCED.get(rule) ?? [])
  return asked.includes('reject') ? 'reject' : (asked[0] ?? null)
}

/** Hundredths: 0.1 and 0.2 must reach a threshold of 0.3. */
function scoreOf(findings: readonly Finding[]): number {
  return Math.round(findings.reduce((sum, finding) => sum + finding.score, 0) * 100) / 100
}
