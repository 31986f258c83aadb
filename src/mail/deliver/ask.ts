/**
 * Asks the next hop whether it takes a recipient, before the mail comes: MAIL and RCPT without a
 * message. Only a clear "there is no such mailbox" is a no; whatever else happens the recipient is
 * taken, because the queue can wait and a refused sender cannot. A next hop that takes every
 * address is found out by one that nobody has, and not asked any more for a while.
 */
import { type Clock, within } from '../../base/clock.ts'
import type { Resolver } from '../../base/dns.ts'
import { GatewayError, messageOf } from '../../base/errors.ts'
import { Expiring } from '../../base/expiring.ts'
import type { Observer } from '../../base/observe.ts'
import { type Random, randomHex } from '../../base/random.ts'
import { formatNextHop, type NextHop } from '../../message/nexthop.ts'
import { Client, TlsFailedError } from './client.ts'
import { Pool } from './pool.ts'
import { type HopReply, toReply } from './reader.ts'
import { hopAddresses } from './route.ts'

const HOUR_MS = 3_600_000
/** A mailbox seldom goes, and a new one should not be refused for long. */
const YES_MS = 24 * HOUR_MS
const NO_MS = 2 * HOUR_MS
/** After an answer that says nothing, or none, nobody waits for the next one for so long. */
const DOUBT_MS = 60_000
/** How long it is believed that a next hop knows its mailboxes, or takes everything. */
const KNOWS_MS = HOUR_MS
const ADDRESSES_MAX = 20_000
const DOMAINS_MAX = 2_000
/** Questions at a time: a flood of unknown addresses must not become one at the next hop. */
const ASKING_MAX = 10

export type RecipientQuestionsDeps = {
  readonly clock: Clock
  readonly random: Random
  readonly resolver: Resolver
  readonly observer: Observer
  /** Name for EHLO. */
  readonly hostname: string
  /** For one question, all of it. */
  readonly timeoutMs: () => number
}

/** Null: nobody knows. */
type Said = boolean | null

export class RecipientQuestions {
  readonly #deps: RecipientQuestionsDeps
  readonly #pool: Pool
  readonly #answers: Expiring<Said>
  /** By domain and next hop: whether it tells its mailboxes from others. */
  readonly #knows: Expiring<boolean>
  /** Next hops that did not answer. */
  readonly #silent: Expiring<true>
  readonly #asking = new Map<string, Promise<boolean>>()

  constructor(deps: RecipientQuestionsDeps) {
    this.#deps = deps
    this.#pool = new Pool(deps.clock)
    this.#answers = new Expiring(deps.clock, ADDRESSES_MAX)
    this.#knows = new Expiring(deps.clock, DOMAINS_MAX)
    this.#silent = new Expiring(deps.clock, DOMAINS_MAX)
  }

  /**
   * False: the first of `hops` that can be asked says that there is no such mailbox. Never rejects;
   * ends within `timeoutMs`. Without hops there is nobody to ask: the MX may lead back here.
   */
  exists(address: string, hops: readonly NextHop[]): boolean | Promise<boolean> {
    const hop = hops.find((each) => this.#silent.get(formatNextHop(each)) === undefined)
    if (hop === undefined || !isPlain(address)) return true
    const domain = address.slice(address.lastIndexOf('@') + 1)
    const place = `${formatNextHop(hop)} ${domain}`
    if (this.#knows.get(place) === false) return true
    const key = `${formatNextHop(hop)} ${address.toLowerCase()}`
    const known = this.#answers.get(key)
    if (known !== undefined) return known !== false
    const same = this.#asking.get(key)
    if (same !== undefined) return same
    if (this.#asking.size >= ASKING_MAX) return true
    const answer = this.#ask(address, hop, place)
      .then((said) => {
        this.#answers.set(key, said, said === null ? DOUBT_MS : said ? YES_MS : NO_MS)
        return said !== false
      })
      .finally(() => this.#asking.delete(key))
    this.#asking.set(key, answer)
    return answer
  }

  close(): void {
    this.#pool.close()
  }

  /** Within the time; a connection that answers later is cut off by its own. */
  async #ask(address: string, hop: NextHop, place: string): Promise<Said> {
    const { clock, observer, timeoutMs } = this.#deps
    const host = formatNextHop(hop)
    try {
      return await within(clock, timeoutMs(), this.#talk(address, hop, place))
    } catch (error) {
      this.#silent.set(host, true, DOUBT_MS)
      observer.emit('recipient.unasked', { host, cause: messageOf(error) })
      return null
    }
  }

  async #talk(address: string, hop: NextHop, place: string): Promise<Said> {
    const host = formatNextHop(hop)
    const client = this.#pool.take(host) ?? (await this.#open(hop))
    try {
      if (client.needsReset) await command(client, 'RSET')
      client.needsReset = true
      const mail = await command(client, 'MAIL FROM:<>')
      const said = mail.code >= 300 ? null : saidBy(await command(client, `RCPT TO:<${address}>`))
      if (said === true && this.#knows.get(place) === undefined) {
        await this.#try(client, address, place)
      }
      this.#pool.give(host, client)
      return said
    } catch (error) {
      client.abandon()
      throw error
    }
  }

  /** A name of 32 random digits is nobody's mailbox. */
  async #try(client: Client, address: string, place: string): Promise<void> {
    const domain = address.slice(address.lastIndexOf('@') + 1)
    const nobody = `${randomHex(this.#deps.random, 16)}@${domain}`
    const said = saidBy(await command(client, `RCPT TO:<${nobody}>`))
    if (said === null) return
    this.#knows.set(place, said === false, KNOWS_MS)
    if (said) this.#deps.observer.emit('recipient.unknowable', { host: client.label, domain })
  }

  async #open(hop: NextHop): Promise<Client> {
    const { clock, hostname, resolver, timeoutMs } = this.#deps
    const [ip] = await hopAddresses(hop, resolver)
    if (ip === undefined) throw new GatewayError('it has no address', { remedy: 'retry' })
    const { protocol, host, port } = hop
    const options = { clock, hostname, timeoutMs: timeoutMs() }
    const address = { protocol, host, ip, port }
    return await Client.open(address, { ...options, mayEncrypt: true }).catch((error) => {
      if (!(error instanceof TlsFailedError)) throw error
      return Client.open(address, { ...options, mayEncrypt: false })
    })
  }
}

async function command(client: Client, line: string): Promise<HopReply> {
  client.send(Buffer.from(`${line}\r\n`))
  return await client.reply()
}

/**
 * RFC 3463 section 3.2: 5.1.x is a bad address, and 5.2.1 a mailbox that is closed. Another 5.x.x
 * is about us or our policy; without such a code only those of RFC 5321 for a mailbox count.
 */
function saidBy(answer: HopReply): Said {
  if (answer.code < 300) return true
  if (answer.code < 500) return null
  const enhanced = /^5\.\d{1,3}\.\d{1,3}\b/.exec(answer.lines[0] ?? '')?.[0]
  if (enhanced !== undefined) return /^5\.(?:1\.|2\.1$)/.test(enhanced) ? false : null
  return [550, 551, 553].includes(toReply(answer).code) ? false : null
}

/** What may stand in a command as it is; others are not asked about. */
function isPlain(address: string): boolean {
  return /^[^\s<>\x00-\x1f\x7f-\uffff]+@[^\s<>@]+$/.test(address)
}
