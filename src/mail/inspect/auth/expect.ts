/**
 * Names that the checks of a mail will ask for, as far as they can be told before: all are asked
 * in one round, and an SPF record with three includes takes three rounds, not ten. It only asks;
 * what it misses, the checks ask themselves.
 */
import type { DnsAnswer } from '../../../base/names.ts'
import { canonicalNetwork, NetworkIndex } from '../../../config/networks.ts'
import { fieldValues, type Header } from '../../../message/header.ts'
import type { Known } from '../look.ts'

/** Terms of one SPF check that ask the name servers (RFC 7208 section 4.6.4). */
const SPF_TERMS_MAX = 10
/** Hosts of one MX that are looked at (the same section). */
const MX_HOSTS_MAX = 10
/** Labels of the longest name of a tree walk (RFC 9989 section 4.10). */
const WALK_LABELS_MAX = 7
/** Seals of a chain whose keys are asked for ahead; a real chain has few. */
const SEALS_MAX = 10

/** What `header` names as the keys of its signatures. */
export function expectKeys(names: Known, header: Header, signaturesMax: number): void {
  const fields = [
    ...fieldValues(header, 'dkim-signature').slice(0, signaturesMax),
    ...fieldValues(header, 'arc-seal').slice(0, SEALS_MAX),
    ...fieldValues(header, 'arc-message-signature').slice(0, 1),
  ]
  for (const field of fields) {
    const domain = tagOf(field, 'd')
    const selector = tagOf(field, 's')
    if (domain !== null && selector !== null) {
      names.ask({ name: `${selector}._domainkey.${domain}`, type: 'TXT' })
    }
  }
}

/** The value of a tag without blanks (RFC 6376 section 3.2), when it can stand in a name. */
export function tagOf(field: string, tag: string): string | null {
  for (const piece of field.split(';')) {
    const equals = piece.indexOf('=')
    if (equals < 0 || piece.slice(0, equals).trim() !== tag) continue
    const value = piece.slice(equals + 1).replace(/\s+/g, '')
    return /^[a-z0-9._-]{1,253}$/i.test(value) ? value : null
  }
  return null
}

/** The names of a tree walk from `domain` up (RFC 9989 section 4.10). */
export function expectWalk(names: Known, domain: string): void {
  for (const name of walkOf(domain)) names.ask({ name, type: 'TXT' })
}

function walkOf(domain: string): readonly string[] {
  if (!isName(domain)) return []
  const found: string[] = []
  let labels = domain.split('.')
  while (labels.length > 0) {
    const name = `_dmarc.${labels.join('.')}`
    if (name.length <= 253) found.push(name)
    labels = labels.length > WALK_LABELS_MAX ? labels.slice(-WALK_LABELS_MAX) : labels.slice(1)
  }
  return found
}

/** Surely nobody wrote a policy for `domain`: the usual case of small senders, and a cheap one. */
export function hasNoPolicy(names: Known, domain: string): boolean {
  return walkOf(domain).every((name) => hasNo(names, name, /v\s*=\s*DMARC1/i))
}

/** Surely `domain` has no SPF record: RFC 7208 section 4.5 says `none`. */
export function hasNoSpf(names: Known, domain: string): boolean {
  return isName(domain) && hasNo(names, domain, /v=spf1/i)
}

function hasNo(names: Known, name: string, mark: RegExp): boolean {
  const answer = names.ask({ name, type: 'TXT' })
  if (answer === null || answer.status === 'failed') return false
  return answer.status === 'absent' || !answer.records.some((text) => mark.test(text))
}

/** What check_host() of `domain` will ask for a client at `ip` (RFC 7208 section 4). */
export function expectSpf(names: Known, domain: string, ip: string): void {
  new SpfAhead(names, ip).record(domain)
}

class SpfAhead {
  readonly #names: Known
  readonly #ip: string
  readonly #seen = new Set<string>()
  #terms = 0

  constructor(names: Known, ip: string) {
    this.#names = names
    this.#ip = ip
  }

  /** True when a term of it surely ends the check: what follows is not asked. */
  record(domain: string): boolean {
    if (!isName(domain) || this.#seen.has(domain)) return false
    this.#seen.add(domain)
    const answer = this.#names.ask({ name: domain, type: 'TXT' })
    const records = textsOf(answer).filter((text) => /^v=spf1(?: |$)/i.test(text))
    const [record] = records
    if (record === undefined || records.length > 1) return false
    const terms = record.split(/ +/).slice(1)
    for (const term of terms) if (this.#term(term, domain)) return true
    const redirect = terms.find((term) => /^redirect=/i.test(term))
    if (redirect !== undefined) this.#lookUp(() => this.record(redirect.slice(9).toLowerCase()))
    return false
  }

  /** True when it surely matches. */
  #term(term: string, domain: string): boolean {
    const [, name = '', value = ''] = /^[-+~?]?([a-z0-9]+)(?:[:/](.*))?$/i.exec(term) ?? []
    const isBare = !term.includes(':')
    const target = isBare ? domain : (value.split('/')[0] ?? '').toLowerCase()
    switch (name.toLowerCase()) {
      case 'all':
        return true
      case 'ip4':
      case 'ip6':
        return canonicalNetwork(value) !== null && new NetworkIndex([value]).find(this.#ip) !== null
      case 'include':
        // What the included record says first is `pass` or goes on: only a match of ours ends it.
        this.#lookUp(() => this.record(target))
        return false
      case 'a':
        this.#lookUp(() => this.#addresses(target))
        return false
      case 'exists':
        this.#lookUp(() => isName(target) && this.#names.ask({ name: target, type: 'A' }))
        return false
      case 'mx':
        this.#lookUp(() => this.#exchanges(target))
        return false
      default:
        return false
    }
  }

  #lookUp(act: () => unknown): void {
    if (this.#terms >= SPF_TERMS_MAX) return
    this.#terms += 1
    act()
  }

  #addresses(name: string): void {
    const type = this.#ip.includes(':') ? 'AAAA' : 'A'
    if (isName(name)) this.#names.ask({ name, type })
  }

  #exchanges(name: string): void {
    if (!isName(name)) return
    const hosts = textsOf(this.#names.ask({ name, type: 'MX' })).toSorted()
    for (const host of hosts.slice(0, MX_HOSTS_MAX)) {
      this.#addresses((host.split(' ')[1] ?? '').replace(/\.$/, ''))
    }
  }
}

function textsOf(answer: DnsAnswer | null): readonly string[] {
  return answer?.status === 'found' ? answer.records : []
}

/** Without macros, and long enough to be in the DNS. */
function isName(text: string): boolean {
  return (
    text.length <= 253 &&
    text.includes('.') &&
    text.split('.').every((label) => /^[a-z0-9_-]{1,63}$/i.test(label))
  )
}
