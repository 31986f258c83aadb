/**
 * Nodes ask each other how messages stand (`mail.standing`). The question says what the asker
 * holds to be true, the answer what the asked one does: each side applies what the other knows
 * better. So it announces an adoption as well as it finds one.
 */
import { messageOf, RefusalError } from '../base/errors.ts'
import type { NodeId } from '../base/ids.ts'
import type { Observer } from '../base/observe.ts'
import type { Absences } from './absence.ts'
import type { Calls, Roster } from './contract.ts'
import {
  encodeStandings,
  encodeTitles,
  readStandings,
  readTitles,
  type Standing,
  type Standings,
  standingOf,
  type Titled,
} from './standing.ts'
import type { MailStore, Yields } from './yield.ts'

const TOPIC = 'mail.standing'
/** What became of an attempt that ran while its message was given up. */
const ENDED_TOPIC = 'mail.ended'

export type HearingOptions = {
  readonly calls: Calls
  readonly roster: Pick<Roster, 'self' | 'peers' | 'onChange'>
  readonly absences: Pick<Absences, 'heard'>
  readonly store: MailStore
  readonly yields: Yields
  readonly observer: Observer
  /** What this node does not name it never had. False while it is joining, or is not sure itself. */
  readonly mayDeny: () => boolean
  /** Resolves when no adoption is half done here. */
  readonly settled: () => Promise<void>
  /** A former owner says how a message stood there when it gave it up. */
  readonly ended: (from: NodeId, standing: Standing) => void
}

export class Hearing {
  readonly #options: HearingOptions
  /** The highest count of starts that was heard of each node. */
  readonly #epochs = new Map<NodeId, number>()

  constructor(options: HearingOptions) {
    this.#options = options
    const { calls, roster } = options
    this.#followEpochs()
    roster.onChange(() => this.#followEpochs())
    calls.answer(TOPIC, async (value, from) => ({
      kind: 'json',
      value: encodeStandings(await this.#answer(value, from)),
    }))
    calls.answer(ENDED_TOPIC, async (value, from) => {
      const said = readStandings(value)
      for (const standing of said?.standings ?? []) {
        await options.yields.take(standing)
        options.ended(from, standing)
      }
      return { kind: 'json', value: said !== null }
    })
  }

  /** Applies what the answer says. Null: there was none, or it could not be kept here. */
  async ask(node: NodeId, titles: readonly Titled[]): Promise<Standings | null> {
    const { calls, observer } = this.#options
    try {
      const said = readStandings(await calls.ask(node, TOPIC, encodeTitles(titles)))
      if (said === null) return null
      const asked = new Set(titles.map(({ id }) => id))
      for (const standing of said.standings) {
        if (asked.has(standing.id)) await this.#options.yields.take(standing)
      }
      return said
    } catch (error) {
      // Nobody in reach is no news; a disk that fails is.
      if (!(error instanceof RefusalError)) {
        observer.emit('call.failed', { peer: node, topic: TOPIC, detail: messageOf(error) })
      }
      return null
    }
  }

  /** Tells a new owner what was done here, at most STANDINGS_MAX. False: it has not heard it. */
  async tellEnded(node: NodeId, standings: readonly Standing[]): Promise<boolean> {
    const value = encodeStandings({ isBehind: false, epoch: 0, standings })
    try {
      return (await this.#options.calls.ask(node, ENDED_TOPIC, value)) === true
    } catch {
      return false
    }
  }

  async #answer(value: unknown, from: NodeId): Promise<Standings> {
    const titles = readTitles(value)
    if (titles === null) throw new RefusalError('invalid', null, 'It cannot be read.', 'Update it.')
    const { absences, store, yields, mayDeny, settled } = this.#options
    absences.heard(from)
    await settled()
    const standings: Standing[] = []
    for (const { id, owner, term } of titles) {
      const before = standingOf(store, id)
      if (before === null) continue
      await yields.take({ id, owner, term, kind: 'own', states: [] })
      standings.push(standingOf(store, id) ?? before)
    }
    // The asker gives a message up on this word: it must outlive this process.
    if (standings.some((standing) => standing.owner === store.node)) await store.synced()
    return { isBehind: !mayDeny(), epoch: this.#epochs.get(from) ?? 0, standings }
  }

  #followEpochs(): void {
    for (const { node, spool } of this.#options.roster.peers()) {
      if (spool === undefined) continue
      this.#epochs.set(node, Math.max(this.#epochs.get(node) ?? 0, spool.epoch))
    }
  }
}
