/** Mail that was delivered and is known to be bad now: who got a link or a file of it already. */
import type { Clock } from '../base/clock.ts'
import type { MessageId } from '../base/ids.ts'
import type { Observer } from '../base/observe.ts'
import { parseQuery } from '../store/query.ts'
import type { Trace } from '../store/trace.ts'
import type { Flip } from './contract.ts'

export type FlipDeps = {
  readonly clock: Clock
  readonly trace: Pick<Trace, 'message' | 'search'>
  readonly observer: Pick<Observer, 'emit'>
}

/** Things of one mail that are looked for. */
const SOUGHT_MAX = 10

/**
 * Recipients who got a file or a whole link of the mail, as far back as the trace goes, on all
 * nodes; `query` finds them. Null: it has neither, or nobody did. A host alone says too little:
 * half of all mail has a link to the same few.
 */
function flipOf(id: MessageId, { clock, trace }: FlipDeps): Flip | null {
  const { urls = [], files = [] } = trace.message(id).judgement?.insight ?? {}
  const asked = [
    ['file', files.slice(0, SOUGHT_MAX).map(({ sha256 }) => sha256)],
    ['link', urls.slice(0, SOUGHT_MAX).filter((url) => /^https?:/i.test(url) && !/[",]/.test(url))],
  ] as const
  const found = asked.flatMap(([field, values]) => {
    if (values.length === 0) return []
    const text = `${field}:${values.map((value) => `"${value}"`).join(',')} is:delivered`
    const query = parseQuery(text, clock.wallMs())
    // A link that is too long for a query is not looked for.
    if (query.mistakes.length > 0) return []
    return [{ query: text, recipients: trace.search(query, { limit: 1, cursor: null }).total }]
  })
  const [most] = found.toSorted((a, b) => b.recipients - a.recipients)
  return most === undefined || most.recipients === 0 ? null : most
}

/** As `flipOf`, and it is told: in the log and in a counter. */
export function tellFlip(id: MessageId, by: string, deps: FlipDeps): Flip | null {
  const flip = flipOf(id, deps)
  if (flip !== null) {
    const { recipients } = flip
    deps.observer.emit('verdict.flipped', { message: id, recipients, by })
  }
  return flip
}
