/**
 * What an adoption leaves open: did the former owner deliver what is delivered here again? When it
 * is back and says how its recipients stood, each of them is known to have arrived once or twice,
 * and what has not gone out yet is in doubt no more. Known to this run only: after a restart, or
 * when the former owner never comes back, the count of possible duplicates stays an upper bound.
 */
import type { Clock } from '../base/clock.ts'
import type { MessageId, NodeId } from '../base/ids.ts'
import type { Observer } from '../base/observe.ts'
import { isFinal, type Message } from '../store/queued.ts'
import type { Roster } from './contract.ts'
import type { Standing } from './standing.ts'
import type { MailStore } from './yield.ts'

/** Of one recipient; `open`: nobody had delivered it yet, and it goes on as if nothing had been. */
export type Resolution = 'once' | 'twice' | 'open'

/** Further ones stay counted. */
const DOUBTS_MAX = 50_000

export type DoubtsDeps = {
  readonly store: MailStore
  readonly roster: Pick<Roster, 'get'>
  readonly clock: Clock
  readonly observer: Observer
  /** Plans of these messages are void. */
  readonly replan: (messages: readonly Message[]) => void
  readonly resolved: (id: MessageId, index: number, how: Resolution, from: NodeId) => void
}

type Doubt = {
  readonly from: NodeId
  /** Recipients that only the adoption made doubtful, and their attempts by then. */
  readonly places: ReadonlyMap<number, number>
  /** While it is here. */
  message: Message | null
  /** Afterwards: what went out from here. */
  delivered: ReadonlySet<number>
}

export class Doubts {
  readonly #deps: DoubtsDeps
  readonly #doubts = new Map<MessageId, Doubt>()

  constructor(deps: DoubtsDeps) {
    this.#deps = deps
  }

  /** Before a copy is adopted: its recipients that are in no doubt yet, and their attempts. */
  placesOf({ recipients }: Message): ReadonlyMap<number, number> {
    const places = new Map<number, number>()
    for (const [index, { state, doubtful, attempts }] of recipients.entries()) {
      if (!doubtful && state !== 'inDoubt' && state !== 'held' && !isFinal(state))
        places.set(index, attempts)
    }
    return places
  }

  /** It is adopted from `from`. */
  began(message: Message, from: NodeId, places: ReadonlyMap<number, number>): void {
    if (places.size === 0 || this.#doubts.size >= DOUBTS_MAX) return
    this.#doubts.set(message.id, { from, places, message, delivered: new Set() })
  }

  /** Lets go of messages that are over, and of doubts that nobody will resolve. */
  look(): void {
    const { store, roster } = this.#deps
    for (const [id, doubt] of this.#doubts) {
      const { message, from } = doubt
      const isOthers = (store.get(id) ?? store.copy(id) ?? store.fate(id))?.owner !== store.node
      if (isOthers || roster.get(from)?.standing !== 'member') this.#doubts.delete(id)
      else if (message !== null && store.get(id) !== message) {
        doubt.delivered = new Set(message.delivered)
        doubt.message = null
      }
    }
  }

  /** `node` says how it stood there by its own doing, when it gave it up or was done with it. */
  hear(node: NodeId, said: Standing): void {
    const { id } = said
    const doubt = this.#doubts.get(id)
    if (doubt === undefined || doubt.from !== node) return
    this.#doubts.delete(id)
    const cleared: number[] = []
    for (const [index, attempts] of doubt.places) {
      const how = resolutionOf(doubt, said, index)
      if (how === null) continue
      if (how === 'open' && !this.#clear(doubt, index, attempts)) continue
      if (how === 'open') cleared.push(index)
      this.#deps.observer.emit('queue.resolved', { message: id, recipient: index, how })
      this.#deps.resolved(id, index, how, node)
    }
    if (cleared.length > 0 && doubt.message !== null) this.#deps.replan([doubt.message])
  }

  /** False: it was tried here meanwhile, and how that ended may be a doubt of its own. */
  #clear({ message }: Doubt, index: number, attempts: number): boolean {
    const { store, clock } = this.#deps
    const recipient = message?.recipients[index]
    if (message === null || recipient === undefined) return false
    if (recipient.state === 'trying' || isFinal(recipient.state)) return false
    if (recipient.attempts !== attempts) return false
    if (recipient.state === 'inDoubt') {
      recipient.state = 'deferred'
      recipient.nextTryMs = clock.wallMs()
    }
    recipient.doubtful = false
    const at = recipient.state === 'queued' ? clock.wallMs() : recipient.nextTryMs
    store.mark('defer', message, [index], { at, attempts, doubt: false })
    return true
  }
}

/** Null: who says it does not know himself, or it went out neither here nor there. */
function resolutionOf(
  { message, delivered }: Doubt,
  { states, sure }: Standing,
  index: number,
): Resolution | null {
  const isHere = (message?.delivered ?? delivered).has(index)
  if (sure?.[index] !== true) return null
  if (states[index] === 'done') return isHere ? 'twice' : 'once'
  return isHere ? 'once' : 'open'
}
