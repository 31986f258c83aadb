/**
 * What the name servers say of a client before its mail: lists that have its address, the name
 * that leads back to it, the name that it gives itself. All is asked at once, when the client
 * connects, and nothing waits longer than `dns.timeout`: what is not known by then is left out,
 * and says so.
 */
import { isIP } from 'node:net'
import type { Clock } from '../../base/clock.ts'
import type { DnsAnswer, DnsType, Names } from '../../base/names.ts'
import { parseListZone } from '../../config/lines.ts'
import type { Settings } from '../../config/schema.ts'
import { pointerOf, reversed, ruleOf, weigh } from '../../config/zones.ts'
import { plainLine } from '../../message/header.ts'
import { type Reply, reply } from '../../message/reply.ts'
import type { AuthResult, Finding } from '../../message/verdict.ts'

export type ClientFacts = {
  /** Of the lists and of the names. */
  readonly findings: readonly Finding[]
  /** That leads back to its address; null: there is none, or nobody knows. */
  readonly name: string | null
  /** Null: nobody asked. */
  readonly iprev: AuthResult | null
  /** The lists together weigh enough: it is refused. */
  readonly refusal: Reply | null
}

export const NOTHING_ASKED: ClientFacts = { findings: [], name: null, iprev: null, refusal: null }

export type VisitorDeps = {
  readonly clock: Clock
  readonly names: Names
  readonly settings: Settings
  /** A name of this gateway, or a domain of ours. */
  readonly isOurs: (name: string) => boolean
}

/** Names of one address that are looked at; more is an attack or a shared host. */
const POINTERS_MAX = 5
/** What the names of a client weigh together: many small senders have none that fit. */
const NAMES_SCORE_MAX = 5
const NO_ANSWER: DnsAnswer = { status: 'failed', cause: 'no answer in time' }

type Lists = { readonly findings: readonly Finding[]; readonly refusal: Reply | null }
type Pointer = Pick<ClientFacts, 'findings' | 'name' | 'iprev'>

const NO_LISTS: Lists = { findings: [], refusal: null }
const NO_POINTER: Pointer = { findings: [], name: null, iprev: null }

export class Visitor {
  readonly #ip: string
  readonly #deps: VisitorDeps
  #lists = NO_LISTS
  #pointer = NO_POINTER
  #greeting: readonly Finding[] = []
  #greeted = 0
  #waiting = 0
  #settled: Promise<unknown> = Promise.resolve()

  /** Asks at once. `mayRefuse`: false for clients that the operator allows; lists are not asked. */
  constructor(ip: string, mayRefuse: boolean, deps: VisitorDeps) {
    this.#ip = ip
    this.#deps = deps
    if (mayRefuse && deps.settings['connection.lists'].length > 0) {
      this.#await(this.#askLists(), (lists) => {
        this.#lists = lists
      })
    }
    if (this.#looksAtNames) {
      this.#await(this.#askPointer(), (pointer) => {
        this.#pointer = pointer
      })
    }
  }

  /** What it called itself last, in EHLO. */
  greeted(name: string): void {
    if (!this.#looksAtNames) return
    this.#greeted += 1
    const order = this.#greeted
    this.#await(this.#askGreeting(name), (findings) => {
      if (order === this.#greeted) this.#greeting = findings
    })
  }

  /** Within `dns.timeout` of the last question. Never rejects. */
  known(): ClientFacts | Promise<ClientFacts> {
    return this.#waiting === 0 ? this.#facts() : this.#settled.then(() => this.#facts())
  }

  /** As far as is known now: a list has it. */
  get isSuspect(): boolean {
    return this.#lists.findings.some(({ score }) => score > 0)
  }

  /** This machine needs no name. */
  get #looksAtNames(): boolean {
    const isHere = this.#ip.startsWith('127.') || this.#ip === '::1'
    return !isHere && this.#deps.settings['connection.names'] === 'score'
  }

  #facts(): ClientFacts {
    const { name, iprev } = this.#pointer
    let left = NAMES_SCORE_MAX
    const names = [...this.#pointer.findings, ...this.#greeting].map((finding) => {
      const score = Math.min(finding.score, left)
      left -= score
      return { ...finding, score }
    })
    const { findings, refusal } = this.#lists
    return { findings: [...findings, ...names], name, iprev, refusal }
  }

  #await<Value>(task: Promise<Value>, done: (value: Value) => void): void {
    this.#waiting += 1
    const ended = task.then((value) => {
      this.#waiting -= 1
      done(value)
    })
    this.#settled = Promise.all([this.#settled, ended])
  }

  async #askLists(): Promise<Lists> {
    const { settings } = this.#deps
    const address = reversed(this.#ip)
    if (address === null) return NO_LISTS
    const lists = settings['connection.lists'].flatMap((line) => parseListZone(line) ?? [])
    const answers = await Promise.all(lists.map(({ zone }) => this.#ask(`${address}.${zone}`, 'A')))
    const findings: Finding[] = []
    const zones: string[] = []
    let sum = 0
    for (const [place, list] of lists.entries()) {
      const answer = answers[place] ?? NO_ANSWER
      if (answer.status === 'failed') findings.push(unknownList(this.#ip, list.zone, answer.cause))
      const listing = answer.status === 'found' ? weigh(list, answer.records) : null
      if (listing === null) continue
      sum += listing.score
      if (listing.score > 0) zones.push(list.zone)
      findings.push({
        rule: ruleOf('DNSBL', list.zone),
        score: listing.score,
        evidence: `The list ${list.zone} has the client ${this.#ip}, with ${listing.codes.join(' and ')}.`,
      })
    }
    if (sum < settings['connection.reject']) return { findings, refusal: null }
    const text = `${this.#ip} is listed by ${zones.slice(0, 5).join(', ')}`
    return { findings, refusal: reply(550, '5.7.1', text) }
  }

  /** RFC 8601 section 3: the address has a name, and the name has the address. */
  async #askPointer(): Promise<Pointer> {
    const name = pointerOf(this.#ip)
    if (name === null) return NO_POINTER
    const family = this.#ip.includes(':') ? 'AAAA' : 'A'
    return await this.#within(
      this.#confirm(name, family),
      this.#pointerUnknown('no answer in time'),
    )
  }

  async #confirm(pointer: string, family: DnsType): Promise<Pointer> {
    const { names } = this.#deps
    const answer = await names.query({ name: pointer, type: 'PTR' })
    if (answer.status === 'failed') return this.#pointerUnknown(answer.cause)
    if (answer.status === 'absent') return this.#pointerFails('RDNS_NONE', 2, 'has no name')
    const hosts = answer.records.slice(0, POINTERS_MAX)
    const back = await Promise.all(hosts.map((name) => names.query({ name, type: family })))
    const wanted = reversed(this.#ip)
    const good = hosts.find((host, place) => {
      const given = back[place]
      return (
        isHostName(host) &&
        given?.status === 'found' &&
        given.records.some((ip) => reversed(ip) === wanted)
      )
    })
    const shown = plainLine(hosts[0] ?? '', 100)
    if (good !== undefined) {
      const evidence = `The name ${good} of ${this.#ip} leads back to it.`
      const iprev: AuthResult = { method: 'iprev', result: 'pass', about: this.#ip, evidence }
      return { findings: [], name: good.toLowerCase(), iprev }
    }
    const silent = back.find((given) => given.status === 'failed')
    if (silent?.status === 'failed') return this.#pointerUnknown(silent.cause)
    return this.#pointerFails(
      'RDNS_BROKEN',
      1,
      `has the name ${shown}, which does not lead back to it`,
    )
  }

  #pointerFails(rule: string, score: number, what: string): Pointer {
    const evidence = `The client ${this.#ip} ${what}.`
    const iprev: AuthResult = { method: 'iprev', result: 'fail', about: this.#ip, evidence }
    return { findings: [{ rule, score, evidence }], name: null, iprev }
  }

  #pointerUnknown(cause: string): Pointer {
    const evidence = `The name of the client ${this.#ip} is not known: ${cause}.`
    const iprev: AuthResult = { method: 'iprev', result: 'temperror', about: this.#ip, evidence }
    return { findings: [{ rule: 'RDNS_UNKNOWN', score: 0, evidence }], name: null, iprev }
  }

  async #askGreeting(greeting: string): Promise<readonly Finding[]> {
    const name = greeting.toLowerCase().replace(/\.$/, '')
    const said = (rule: string, score: number, what: string): readonly Finding[] => [
      {
        rule,
        score,
        evidence: `The client ${this.#ip} calls itself ${plainLine(greeting, 100)}, ${what}.`,
      },
    ]
    // RFC 5321 section 4.1.3: an address stands in brackets.
    if (isIP(name) !== 0) return said('HELO_BARE_IP', 3, 'which is a bare address')
    if (name.startsWith('[')) return []
    if (this.#deps.isOurs(name)) return said('HELO_IS_OURS', 4, 'which is a name of ours')
    if (!name.includes('.')) return said('HELO_NOT_FQDN', 2, 'which is no full name of a host')
    const [four, six] = await Promise.all([this.#ask(name, 'A'), this.#ask(name, 'AAAA')])
    return four.status === 'absent' && six.status === 'absent'
      ? said('HELO_NO_ADDRESS', 1, 'which has no address')
      : []
  }

  #ask(name: string, type: DnsType): Promise<DnsAnswer> {
    return this.#within(this.#deps.names.query({ name, type }), NO_ANSWER)
  }

  #within<Value>(task: Promise<Value>, otherwise: Value): Promise<Value> {
    const { clock, settings } = this.#deps
    return new Promise((resolve) => {
      const timer = clock.after(settings['dns.timeout'] * 1_000, () => resolve(otherwise))
      void task.then((value) => {
        timer.cancel()
        resolve(value)
      })
    })
  }
}

/** Who owns an address writes its name as he likes; ours goes into headers. */
function isHostName(name: string): boolean {
  return /^[a-z0-9_](?:[a-z0-9_.-]*[a-z0-9_])?$/i.test(name)
}

function unknownList(ip: string, zone: string, cause: string): Finding {
  const evidence = `Whether ${zone} lists the client ${ip} is not known: ${cause}`
  return { rule: 'DNSBL_UNKNOWN', score: 0, evidence }
}
