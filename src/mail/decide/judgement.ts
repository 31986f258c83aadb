/** What is kept of a decision, for whoever asks why. Pure. */
import type { Settings } from '../../config/schema.ts'
import type { Snapshot } from '../../config/snapshot.ts'
import type { Envelope } from '../../message/envelope.ts'
import type { Judgement } from '../../message/rows.ts'
import type { Inspection, Verdict } from '../../message/verdict.ts'

/** The verdict of the recipient with the highest score stands for all. */
export function judge(
  inspection: Inspection,
  verdicts: readonly Verdict[],
  snapshot: Snapshot,
  author?: string,
): Judgement {
  const worst = verdicts.reduce<Verdict | null>(
    (worse, verdict) => (worse === null || verdict.score > worse.score ? verdict : worse),
    null,
  )
  return {
    verdict: worst?.kind ?? 'reject',
    score: worst?.score ?? 0,
    findings: inspection.findings,
    unknowns: inspection.unknowns,
    ...(inspection.insight === undefined ? {} : { insight: inspection.insight }),
    holdFrom: snapshot.settings['policy.hold'],
    rejectFrom: snapshot.settings['policy.reject'],
    ...(author === undefined ? {} : { author }),
  }
}

/**
 * Who becomes known to those who get it: nobody by mail of ours, and by a notification. Kept only
 * where somebody asks who is known: it is a row more for each mail, on every node.
 */
export function authorOf(
  { outbound, sender }: Envelope,
  { facts }: Inspection,
  settings: Pick<Settings, 'inspect.inspectors' | 'sender.firstContact'>,
): string | undefined {
  if (outbound || sender === '' || settings['sender.firstContact'] === 0) return undefined
  return settings['inspect.inspectors'].includes('sender') ? facts.authors[0] : undefined
}
