/**
 * What an adoption leaves open: did the former owner deliver what is delivered here again? When it
 * is back and says how its recipients stood, each of them is known to have arrived once or twice,
 * and what has not gone out yet is in doubt no more. A restart finds in the spool what was adopted
 * and has not been tried here by then. Of what had been, and when the former owner never comes back,
 * the count of possible duplicates stays an upper bound. It is none where a disk goes back in time
 * and nobody in reach knows what was delivered since: that looks like a restart.
 */
import type { Clock } from '../base/clock.ts'
import type { MessageId, NodeId } from '../base/ids.ts'
import type { Observer } from '../base/observe.ts'
import { type Adoption, isFinal, type Message } from '../store/queued.ts'
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
  /** Said of messages of before this start, which are not resumed yet. */
  readonly #early = new Map<MessageId, Standing>()

  constructor(deps: DoubtsDeps) {
    this.#deps = deps
  }

  /**
   * They were adopted before this start, and whoever could have taken them over since has spoken.
   * What was delivered in between would else be taken for not delivered.
   */
  resume(messages: readonly Message[]): void {
    for (const message of messages) {
      const { adoption, recipients, told } = message
      if (adoption === null) continue
      message.adoption = null
      for (const index of adoption.places.keys()) {
        const { state, doubtful } = recipients[index] ?? {}
        // What is told was done there, or here before the disk went back and nobody noticed.
        if (state === 'inDoubt' || doubtful !== true || told.has(index))
          adoption.places.delete(index)
      }
      this.began(message, adoption)
      const said = this.#early.get(message.id)
      this.#early.delete(message.id)
      if (said !== undefined) this.hear(adoption.from, said)
    }
  }

  /** It was adopted, and stood so before that. */
  began(message: Message, { from, places }: Adoption): void {
    if (places.size === 0 || this.#doubts.size >= DOUBTS_MAX) return
    this.#doubts.set(message.id, { from, places, message, delivered: new Set() })
  }

  /** Lets go of messages that are over, and of doubts that nobody will resolve. */
  look(): void {
    const { store, roster } = this.#deps
    for (const id of this.#early.keys()) if (store.get(id) === null) this.#early.delete(id)
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
    if (this.#deps.store.get(id)?.adoption?.from === node) this.#early.set(id, said)
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
