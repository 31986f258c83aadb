/**
 * Whether a sender is known, out of the history that all nodes share. It looks at mail that came at
 * least a day before: an attacker's second mail is a first contact too, and nodes whose histories
 * are seconds or hours apart say the same of one mail.
 */
import { messageOf, StoreError } from '../../base/errors.ts'
import type { DnsAnswer, DnsQuestion, Names } from '../../base/names.ts'
import type { Settings } from '../../config/schema.ts'
import type { Trace } from '../../store/trace.ts'
import { type Acquaintance, askedContact, type ContactQuestion } from './contact.ts'

const DAY_MS = 86_400_000
/** Nodes forget at slightly different times: none goes by what another may have forgotten. */
const FORGOTTEN_MS = 3_600_000

export type HistoryDeps = {
  readonly names: Names
  readonly trace: Pick<Trace, 'saw'>
  readonly settings: () => Settings
  /** What the other nodes know is here. */
  readonly isWhole: () => boolean
}

/** `query` answers questions of contact.ts and hands all others on. */
export class HistoryNames implements Names {
  readonly #deps: HistoryDeps

  constructor(deps: HistoryDeps) {
    this.#deps = deps
  }

  query(question: DnsQuestion, fresh?: 'fresh'): Promise<DnsAnswer> {
    const asked = askedContact(question)
    if (asked === null) return this.#deps.names.query(question, fresh)
    return Promise.resolve(this.#answer(asked))
  }

  /** `absent`: there is too little history to say it. */
  #answer(asked: ContactQuestion): DnsAnswer {
    try {
      const known = this.#acquaintance(asked)
      return known === null ? { status: 'absent' } : { status: 'found', records: [known] }
    } catch (error) {
      if (!(error instanceof StoreError)) throw error
      return { status: 'failed', cause: messageOf(error) }
    }
  }

  #acquaintance({ receivedMs, ...contact }: ContactQuestion): Acquaintance | null {
    const { trace, settings, isWhole } = this.#deps
    const { 'sender.firstContact': days, 'trace.keep': keepDays } = settings()
    const fromMs = receivedMs - keepDays * DAY_MS + FORGOTTEN_MS
    const saw = (what: number, ageDays: number): boolean =>
      trace.saw(what, fromMs, receivedMs - ageDays * DAY_MS)
    if (days === 0 || !isWhole() || !saw(contact.anybody, days)) return null
    if (saw(contact.address, 1)) return 'address'
    return saw(contact.domain, 1) ? 'domain' : 'nobody'
  }
}
