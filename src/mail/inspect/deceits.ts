/**
 * The ways in which a link deceives who reads it. Each look at a link gives what it found, as a
 * rule, its weight and a sentence; links.ts chooses what is told.
 */
import { domainToUnicode } from 'node:url'
import { plainLine } from '../../message/header.ts'
import type { Finding } from '../../message/verdict.ts'
import {
  BRAND_WORDS,
  BRANDS,
  CHEAP_SUFFIXES,
  REDIRECTORS,
  SHORTENERS,
  UNREMOVABLE,
  WRAPPERS,
} from './places.ts'
import { isOneApart, mixesScripts, skeletonOf } from './skeleton.ts'
import { domainOf, findWritten, INVISIBLE, openTarget } from './urls.ts'
import type { Link } from './view.ts'

/** What a link is held against: who is imitated, who wrote, who reads. */
export type Company = {
  /** Domains of ours and those that the operator protects, with how they look. */
  readonly guarded: ReadonlyMap<string, string>
  /** Registered domains of From and of the sender, and where one leaves the list. */
  readonly senders: ReadonlySet<string>
  /** Addresses of recipients, lower case, and their base64 without padding. */
  readonly readers: readonly string[]
  /** Links by registered domain: a tracker has many. */
  readonly counts: ReadonlyMap<string, number>
}

const BRAND_LOOKS = new Map([...BRANDS].map((brand) => [skeletonOf(brand), brand]))

/** All that is wrong with one link. Never throws. */
export function deceitsOf(link: Link, company: Company): readonly Finding[] {
  const found: Finding[] = []
  if (link.host === '') program(link, found)
  else {
    // A picture deceives nobody by its name; an address inside another one is judged by its host.
    if (link.where !== 'image') {
      if (link.via === null) writing(link, found)
      mismatch(link, company, found)
      reader(link, company, found)
      passing(link, found)
    }
    naming(link, company, found)
    numbers(link, found)
  }
  return found
}

function shownLink(link: Link): string {
  return plainLine(link.written.replace(INVISIBLE, '').replace(/\s+/g, ''), 120)
}

/** `data:`, `javascript:`, `file:`: no place on the web. */
function program(link: Link, found: Finding[]): void {
  const { url } = link
  if (url.startsWith('data:')) {
    if (
      !/^data:(?:text\/html|application\/(?:xhtml|javascript|x-)|image\/svg|text\/xml)/i.test(url)
    )
      return
    found.push({
      rule: 'URL_DATA',
      score: 6,
      evidence: `A link carries a whole page inside itself: ${plainLine(url, 80)}.`,
    })
  } else if (url.startsWith('file:')) {
    if (
      !/^file:\/\/[^/]/.test(url) &&
      !/^\s*file:[/\\]{2,}[^/\\]+\.[^/\\]+[/\\]/i.test(link.written)
    )
      return
    found.push({
      rule: 'URL_FILE',
      score: 4,
      evidence: `A link leads to a file of another machine, which gives away a password: ${plainLine(url, 100)}.`,
    })
  } else if (!/^javascript:\s*(?:void\b|;|$|history|window\.(?:print|close))/i.test(link.written)) {
    found.push({
      rule: 'URL_SCRIPT',
      score: 1,
      evidence: `A link runs a program: ${plainLine(url, 80)}.`,
    })
  }
}

/** How the address is written: what stands before the path. */
function writing(link: Link, found: Finding[]): void {
  const { written, url } = link
  if (!ORDINARY.test(written)) unusual(link, found)
  const authority = /^[a-z]+:\/\/([^/?#]*)@/i.exec(url)?.[1]
  if (authority !== undefined && !url.startsWith('ftp:')) {
    const named = /[a-z0-9]\.[a-z]{2}/i.test(authority)
    found.push({
      rule: 'URL_USERINFO',
      score: named ? 4 : 2,
      evidence: `The link ${shownLink(link)} leads to ${link.host}: what stands before the @ is no place.`,
    })
  }
  if (/%e2%80%(?:aa|ab|ad|ae)|%e2%81%a[6-9]/i.test(url)) {
    found.push({
      rule: 'URL_RTL',
      score: 6,
      evidence: `The link ${shownLink(link)} holds escaped characters that turn its text.`,
    })
  }
  const port = /^https?:\/\/[^/?#]*:(\d+)(?:[/?#]|$)/.exec(url)?.[1]
  if (port !== undefined && port !== '8080' && port !== '8443') {
    found.push({
      rule: 'URL_PORT',
      score: 0.5,
      evidence: `The link ${shownLink(link)} leads to the unusual port ${port}.`,
    })
  }
}

/** An ordinary address: nothing about how it is written deceives. */
const ORDINARY = /^https?:\/\/[a-z0-9.-]+(?::\d+)?(?:[/?#][\x21-\x5b\x5d-\x7e]*)?$/i

function unusual(link: Link, found: Finding[]): void {
  const { written } = link
  const host = /^\s*(?:h\s*t\s*t\s*p\s*s?\s*:\s*)?[/\\]*([^/\\?#]*)/i.exec(written)?.[1] ?? ''
  if (/[\u202a-\u202e\u2066-\u2069]/.test(written)) {
    found.push({
      rule: 'URL_RTL',
      score: 6,
      evidence: `The link ${shownLink(link)} holds characters that turn the direction of its text.`,
    })
  }
  // Behind the host they come from copying; inside it they hide it from lists.
  if (/[^\s.](?:\u034f|[\u00ad\u180e\u200b-\u200f\u2060-\u2064\ufeff])+[^\s]/.test(host)) {
    found.push({
      rule: 'URL_ZERO_WIDTH',
      score: 7,
      evidence: `The link to ${link.host} has invisible characters in its name.`,
    })
  }
  if (/^[^@]*%[0-9a-f]{2}/i.test(host)) {
    found.push({
      rule: 'URL_ESCAPED_HOST',
      score: 3,
      evidence: `The link ${shownLink(link)} writes its host ${link.host} in escapes.`,
    })
  }
  const scheme = /^\s*(https?):([/\\]*)/i.exec(written)
  if (scheme !== null && scheme[2] !== '//' && /^https?:/i.test(link.url)) {
    found.push({
      rule: 'URL_ODD_FORM',
      score: 2,
      evidence: `The link ${shownLink(link)} is written in a form that only browsers take; it leads to ${link.host}.`,
    })
  } else if (
    /^\s*h\s*t\s*t\s*p\s*s?\s*:/i.test(written) &&
    /[a-z0-9][\t\r\n][a-z0-9]/i.test(host)
  ) {
    found.push({
      rule: 'URL_ODD_FORM',
      score: 3,
      evidence: `The link to ${link.host} has line breaks inside its name.`,
    })
  }
}

/** What the host is called, and whom it looks like. */
function naming(link: Link, { guarded }: Company, found: Finding[]): void {
  const { host, domain } = link
  const suffix = domain.slice(domain.lastIndexOf('.') + 1)
  if (CHEAP_SUFFIXES.has(suffix)) {
    found.push({
      rule: 'URL_BAD_TLD',
      score: 1,
      evidence: `A link leads to ${host}: domains under .${suffix} are mostly abused.`,
    })
  }
  if (UNREMOVABLE.test(host)) {
    found.push({
      rule: 'URL_UNREMOVABLE',
      score: 3,
      evidence: `A link leads to ${host}, a store whose pages nobody can take down.`,
    })
  }
  if (guarded.has(domain)) return
  const foreign = host.includes('xn--')
  const label = labelOf(foreign ? domainToUnicode(domain) : domain)
  const look = skeletonOf(label)
  const like =
    [...guarded].find(([, its]) => its === look && label !== '')?.[0] ?? BRAND_LOOKS.get(look)
  const whom = like === undefined || like === label || labelOf(like) === label ? undefined : like
  if (foreign && (whom !== undefined || domainToUnicode(host).split('.').some(mixesScripts))) {
    found.push({
      rule: 'URL_HOMOGRAPH',
      score: 5,
      evidence: `The link to ${host} looks like ${whom === undefined ? 'letters of one alphabet and uses two' : `${whom} and is not`}.`,
    })
  } else if (whom !== undefined) {
    found.push({
      rule: 'URL_LOOKALIKE',
      score: 4,
      evidence: `The link to ${host} looks like ${whom} and is not.`,
    })
  } else if (link.where !== 'image') {
    const near = label.length < 6 ? undefined : nearest(label, guarded)
    if (near !== undefined) {
      found.push({
        rule: 'URL_LOOKALIKE',
        score: 2.5,
        evidence: `The link to ${host} is one letter away from ${near}.`,
      })
    } else borrowed(link, label, found)
  }
}

function nearest(label: string, guarded: Company['guarded']): string | undefined {
  for (const domain of guarded.keys()) if (isOneApart(label, labelOf(domain))) return domain
  return undefined
}

/** Words by which a thief makes a name sound safe. */
const TRUST =
  /^(?:account|accounts|auth|billing|confirm|customer|help|id|info|invoice|log|login|mail|my|online|pay|payment|portal|recovery|reset|secure|secured|security|service|services|sign|signin|support|team|update|verification|verify|wallet|web|webscr)$/

/** A brand's name in the name of somebody else. */
function borrowed({ host, domain }: Link, label: string, found: Finding[]): void {
  if (BRANDS.has(label)) return
  const labels = host.slice(0, -domain.length - 1).split('.')
  const whole = labels.find(
    (each, index) =>
      BRANDS.has(each) && /^(?:com|net|org|co|de|fr|it|es|uk)$/.test(labels[index + 1] ?? domain),
  )
  const words = [...labels, label].flatMap((each) => (each.includes('-') ? [each.split('-')] : []))
  const hidden = words.find(
    (each) => each.some((word) => BRAND_WORDS.has(word)) && each.some((word) => TRUST.test(word)),
  )
  if (whole === undefined && hidden === undefined) return
  found.push({
    rule: 'URL_BRAND_IN_HOST',
    score: 3,
    evidence: `The link to ${host} names ${whole ?? hidden?.find((word) => BRAND_WORDS.has(word))}, but the domain is ${domain}.`,
  })
}

function labelOf(domain: string): string {
  const dot = domain.indexOf('.')
  return dot === -1 ? domain : domain.slice(0, dot)
}

const FOUR = /^\d{1,3}(?:\.\d{1,3}){3}$/
const PRIVATE = /^(?:0|10|127)\.|^192\.168\.|^169\.254\.|^172\.(?:1[6-9]|2\d|3[01])\./

function numbers(link: Link, found: Finding[]): void {
  const { host, written } = link
  const four = FOUR.test(host)
  if (!four && !host.includes(':')) return
  if (four && link.via === null && !written.includes(host) && !/^[^:]*$/.test(written)) {
    found.push({
      rule: 'URL_OBSCURED_IP',
      score: 4,
      evidence: `The link ${shownLink(link)} hides the address ${host} behind another way to write numbers.`,
    })
  } else if (!PRIVATE.test(host)) {
    found.push({
      rule: 'URL_NUMERIC_IP',
      score: 2,
      evidence: `A link leads to the address ${host} in place of a name.`,
    })
  }
}

/** What is shown names one place, and the link leads to another. */
function mismatch(link: Link, company: Company, found: Finding[]): void {
  const { shown, domain, host, url } = link
  if (shown === null || link.where !== 'html' || link.via !== null || !shown.includes('.')) return
  const [first] = findWritten(shown)
  if (first === undefined || first.written.length * 2 < shown.length) return
  const named = openTarget(first.bare ? `http://${first.written}` : first.written)
  if (named === null || named.domain === domain || labelOf(named.domain) === labelOf(domain)) return
  if (WRAPPERS.test(host) || url.includes(named.domain)) return
  const label = labelOf(named.domain)
  const valued = company.guarded.has(named.domain) || BRANDS.has(label)
  // Newsletters count clicks on the way: with the sender's name, or on one place for all links.
  const counted = company.senders.has(domain) || (company.counts.get(domain) ?? 0) >= 3
  if (counted && !(valued && !company.senders.has(named.domain))) return
  found.push({
    rule: 'URL_MISMATCH',
    score: valued ? (counted ? 2 : 4) : 1,
    evidence: `A link shows ${named.host} and leads to ${host}.`,
  })
}

/** A link made for its reader carries the address where no server sees it: it fills a false form. */
function reader({ url, host }: Link, { readers }: Company, found: Finding[]): void {
  const hash = url.indexOf('#')
  if (hash === -1 || url.length - hash < 8) return
  const fragment = url.slice(hash + 1).replace(/%40/g, '@')
  const lower = fragment.toLowerCase()
  if (!readers.some((each) => fragment.includes(each) || lower.includes(each))) return
  found.push({
    rule: 'URL_RECIPIENT',
    score: 2.5,
    evidence: `The link to ${host} carries the recipient's address behind a #, as pages do that ask for its password.`,
  })
}

/** Places that only send on, and links that a reader is to put right. */
function passing(link: Link, found: Finding[]): void {
  if (link.spelled !== null) {
    found.push({
      rule: 'URL_DEFANGED',
      score: link.spelled === 'words' ? 2 : 0.5,
      evidence: `A link to ${link.host} is spelled so that programs do not see it.`,
    })
  }
  if (SHORTENERS.has(link.host)) {
    found.push({
      rule: 'URL_SHORTENER',
      score: 0.5,
      evidence: `The link ${shownLink(link)} is a short one: where it leads is not known.`,
    })
  }
  if (link.via === null) return
  const outer = openTarget(link.via)
  if (outer === null || outer.domain === link.domain) return
  const path = outer.url.slice(outer.url.indexOf('/', 8))
  if (REDIRECTORS.some((each) => each.host.test(outer.host) && each.path.test(path))) {
    found.push({
      rule: 'URL_REDIRECTOR',
      score: 1,
      evidence: `A link through ${outer.host} leads on to ${link.host}.`,
    })
  }
}

/** Where a link of a header or of the sender stands for its domain. */
export function registered(address: string): string {
  return domainOf(address.slice(address.lastIndexOf('@') + 1).toLowerCase())
}
