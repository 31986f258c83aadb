/**
 * Mail that ends whatever process looks into it. Asked to come again it would do so each time, for
 * as long as its sender tries, and no person would hear of it: the third time it is held.
 */
import type { Clock } from '../../base/clock.ts'
import { Expiring } from '../../base/expiring.ts'
import type { Observer } from '../../base/observe.ts'
import { type Inspection, NO_FACTS } from '../../message/verdict.ts'
import type { InspectionJob, Inspectors } from './contract.ts'
import { inspecting } from './whole.ts'

const TIMES_MAX = 3
/** Longer than senders go on trying (RFC 5321 section 4.5.4.1). */
const KEPT_MS = 6 * 86_400_000
const MAILS_MAX = 10_000
/** Nobody looks into it again before: many may send the same, and each look costs processes. */
const REST_MS = 600_000

type Poison = { readonly times: number; readonly lastMono: number }

/** As `inspectors`; counts for this run of this node, by the content of a mail. */
export function withPoison(
  inspectors: Inspectors,
  { clock, observer }: { readonly clock: Clock; readonly observer: Observer },
): Inspectors {
  const known = new Expiring<Poison>(clock, MAILS_MAX)

  return inspecting(inspectors, async (job: InspectionJob) => {
    const { sha256 } = job
    if (sha256 === null) return await inspectors.inspect(job)
    const before = known.get(sha256)
    const isResting = before !== undefined && clock.monoMs() - before.lastMono < REST_MS
    if (isResting && before.times >= TIMES_MAX) return held(unseen(job), before.times)
    const found = await inspectors.inspect(job)
    if (found.ended !== true) return found
    const times = (known.get(sha256)?.times ?? 0) + 1
    known.set(sha256, { times, lastMono: clock.monoMs() }, KEPT_MS)
    observer.emit('inspect.ended', { message: job.envelope.id, sha256, times })
    return times < TIMES_MAX ? found : held(found, times)
  })
}

function unseen({ inspectors }: InspectionJob): Inspection {
  const cause = 'it was not looked into again so soon'
  const unknowns = inspectors.map((inspector) => ({ inspector, cause }))
  return { findings: [], unknowns, facts: NO_FACTS }
}

function held(found: Inspection, times: number): Inspection {
  const evidence = `To look into it ended the inspector ${times} times: it is held for a person, and nobody is asked to send it again.`
  return {
    ...found,
    findings: [...found.findings, { rule: 'INSPECTOR_ENDED', score: 0, evidence }],
    unknowns: found.unknowns.map((unknown) => ({ ...unknown, outage: 'hold' })),
  }
}
