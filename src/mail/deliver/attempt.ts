/** One attempt: the hops of a route in turn, until one of them has answered for the message. */
import type { Clock } from '../../base/clock.ts'
import type { Resolver } from '../../base/dns.ts'
import { GatewayError, messageOf } from '../../base/errors.ts'
import { RECIPIENTS_FLOOR } from '../../base/limits.ts'
import type { Observer } from '../../base/observe.ts'
import type { Random } from '../../base/random.ts'
import { formatNextHop, type NextHop } from '../../message/nexthop.ts'
import type { Outcome } from '../../message/outcome.ts'
import {
  type Address,
  Client,
  DialTimeoutError,
  formatAddress,
  HopRefusedError,
  LinkError,
  TlsFailedError,
} from './client.ts'
import type { Deliverer, Delivery, DeliverySettings, Route } from './contract.ts'
import { Pool } from './pool.ts'
import { BadReplyError, toReply } from './reader.ts'
import {
  ADDRESSES_MAX,
  hopAddresses,
  type IsOwn,
  mxAddresses,
  NoRouteError,
  ownAddresses,
} from './route.ts'
import { type Mail, NOT_CANONICAL, transact } from './transaction.ts'
import { NotCanonicalError, smallBody, wholeMessage } from './wire.ts'

export type DelivererDeps = {
  readonly clock: Clock
  readonly random: Random
  readonly resolver: Resolver
  readonly observer: Observer
  /** Addresses of this node: an MX that leads to them is a loop. Loopback is known. */
  readonly ownAddresses?: readonly string[]
}

/** Mail between servers goes to this port, whatever port we listen on. */
const MX_PORT = 25
/** A host that did not answer a dial is asked after the others for this long. */
const SILENT_MS = 60_000
/** Hosts that are remembered as silent; beyond it all are forgotten. */
const SILENT_MAX = 1_000

export function createDeliverer(deps: DelivererDeps): Deliverer {
  return new PooledDeliverer(deps)
}

/** One place to connect to, with the pool key of connections that lead there. */
type Candidate = {
  readonly protocol: NextHop['protocol']
  readonly host: string
  readonly port: number
  readonly key: string
  readonly addresses: () => Promise<readonly string[]>
}

/** Why a candidate did not take the message; the last one makes the outcome. */
type Failure = { readonly host: string | null; readonly error: GatewayError }

class PooledDeliverer implements Deliverer {
  readonly #deps: DelivererDeps
  readonly #pool: Pool
  readonly #isOwn: IsOwn
  /** Pool key to the mono ms until which the host is asked last. */
  readonly #silent = new Map<string, number>()

  constructor(deps: DelivererDeps) {
    this.#deps = deps
    this.#pool = new Pool(deps.clock)
    this.#isOwn = ownAddresses(deps.ownAddresses ?? [])
  }

  async deliver(
    delivery: Delivery,
    route: Route,
    settings: DeliverySettings,
  ): Promise<readonly Outcome[]> {
    const outcomes: Outcome[] = []
    let begun: Promise<void> | null = null
    const marks = (): Promise<void> => {
      begun ??= delivery.beforeDot()
      return begun
    }
    const total = delivery.recipients.length
    let whole: Buffer | null | undefined
    while (outcomes.length < total) {
      // RFC 5321 section 4.5.3.1.8: every server takes a hundred recipients, not every one more.
      const from = outcomes.length
      const recipients = delivery.recipients.slice(from, from + RECIPIENTS_FLOOR)
      try {
        whole = whole === undefined ? await wholeIfSmall(delivery) : whole
        const spared = async (places: readonly number[]): Promise<void> =>
          await delivery.spared?.(places.map((place) => from + place))
        const mail: Mail = { delivery: { ...delivery, recipients, spared }, whole, marks }
        outcomes.push(...(await this.#attempt(mail, route, settings)))
      } catch (error) {
        // What ends the attempt before a hop has answered ends it for all that are left.
        const outcome = this.#withoutHop(delivery, error)
        while (outcomes.length < total) outcomes.push(outcome)
      }
    }
    return outcomes
  }

  async close(): Promise<void> {
    this.#pool.close()
  }

  /** @throws GatewayError when no hop has answered for the message */
  async #attempt(mail: Mail, route: Route, settings: DeliverySettings): Promise<Outcome[]> {
    const failures: Failure[] = []
    let left = ADDRESSES_MAX
    for (const candidate of await this.#candidates(route)) {
      const kept = this.#pool.take(candidate.key)
      if (kept !== null) {
        const result = await this.#over(kept, candidate.key, mail)
        if (!(result instanceof GatewayError)) return result
        // A kept connection that broke before MAIL was answered is no failure of the hop.
        if (kept.hasAnsweredMail) {
          failures.push({ host: kept.label, error: result })
          continue
        }
      }
      for (const ip of await this.#addresses(candidate, failures)) {
        if (left <= 0) break
        left -= 1
        const address: Address = { ...candidate, ip }
        const result = await this.#fresh(address, candidate.key, mail, settings)
        if (!(result instanceof GatewayError)) return result
        failures.push({ host: formatAddress(address), error: result })
      }
    }
    throw new NoHopError(failures)
  }

  async #candidates(route: Route): Promise<Candidate[]> {
    if (route.kind === 'mx') {
      const found = await mxAddresses(route.domain, { ...this.#deps, isOwn: this.#isOwn })
      return found.map(({ host, ip }) => ({
        protocol: 'smtp',
        host,
        port: MX_PORT,
        key: `mx://${host}[${ip}]`,
        addresses: async () => [ip],
      }))
    }
    const candidates = route.hops.map((hop) => ({
      ...hop,
      key: formatNextHop(hop),
      addresses: () => hopAddresses(hop, this.#deps.resolver),
    }))
    const nowMs = this.#deps.clock.monoMs()
    const isSilent = ({ key }: Candidate): boolean => (this.#silent.get(key) ?? 0) > nowMs
    return [...candidates.filter((hop) => !isSilent(hop)), ...candidates.filter(isSilent)]
  }

  async #addresses(candidate: Candidate, failures: Failure[]): Promise<readonly string[]> {
    try {
      return await candidate.addresses()
    } catch (error) {
      if (!(error instanceof NoRouteError)) throw error
      failures.push({ host: null, error })
      return []
    }
  }

  /** Outcomes over a new connection, or why there is none. */
  async #fresh(
    address: Address,
    key: string,
    mail: Mail,
    settings: DeliverySettings,
  ): Promise<Outcome[] | GatewayError> {
    const options = { ...settings, clock: this.#deps.clock, mayEncrypt: true }
    let client: Client
    try {
      client = await Client.open(address, options).catch((error) => {
        if (!(error instanceof TlsFailedError)) throw error
        this.#deps.observer.emit('deliver.unsecured', {
          host: formatAddress(address),
          cause: error.message,
        })
        return Client.open(address, { ...options, mayEncrypt: false })
      })
    } catch (error) {
      if (!isOfHop(error)) throw error
      if (error instanceof DialTimeoutError) this.#noteSilent(key)
      return error
    }
    this.#silent.delete(key)
    return await this.#over(client, key, mail)
  }

  /** Outcomes over a connection, or why it broke before the final dot. */
  async #over(client: Client, key: string, mail: Mail): Promise<Outcome[] | GatewayError> {
    try {
      const outcomes = await transact(client, mail)
      this.#pool.give(key, client)
      return outcomes
    } catch (error) {
      client.abandon()
      if (!isOfHop(error)) throw error
      return error
    }
  }

  #noteSilent(key: string): void {
    if (this.#silent.size >= SILENT_MAX) this.#silent.clear()
    this.#silent.set(key, this.#deps.clock.monoMs() + SILENT_MS)
  }

  #withoutHop(delivery: Delivery, error: unknown): Outcome {
    if (error instanceof NoHopError) return error.outcome
    if (error instanceof NotCanonicalError) {
      return { kind: 'never', host: null, reply: NOT_CANONICAL }
    }
    if (error instanceof NoRouteError && error.reply !== null) {
      return { kind: 'never', host: null, reply: error.reply }
    }
    if (!(error instanceof GatewayError)) {
      const fields = { message: delivery.id, error: messageOf(error) }
      this.#deps.observer.emit('deliver.failed', fields)
    }
    return { kind: 'later', host: null, cause: messageOf(error), dotSent: false }
  }
}

async function wholeIfSmall({ prepend, body }: Delivery): Promise<Buffer | null> {
  const bytes = await smallBody(body)
  return bytes === null ? null : wholeMessage(prepend, bytes)
}

/** Errors that say something about a next hop, not about the message or about us. */
function isOfHop(error: unknown): error is GatewayError {
  return (
    error instanceof LinkError || error instanceof BadReplyError || error instanceof HopRefusedError
  )
}

/** Every hop failed before it could answer for the message. */
class NoHopError extends GatewayError {
  override name = 'NoHopError'
  readonly outcome: Outcome

  constructor(failures: readonly Failure[]) {
    super('no next hop took the message', { remedy: 'retry' })
    const refusals = failures.filter(({ error }) => error.remedy === 'give-up')
    const passing = failures.filter(({ error }) => error.remedy !== 'give-up')
    const last = passing.at(-1) ?? refusals.at(-1)
    // One hop that may come back is reason enough to wait.
    if (passing.length === 0 && last?.error instanceof HopRefusedError) {
      this.outcome = { kind: 'never', host: last.host, reply: toReply(last.error.reply) }
    } else {
      const cause = last?.error.message ?? 'the route has no next hop'
      this.outcome = { kind: 'later', host: last?.host ?? null, cause, dotSent: false }
    }
  }
}
