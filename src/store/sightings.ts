/**
 * What was seen in mail, by a hash of it: links, their hosts and files, which answer who got
 * something that turned out to be bad later; and who wrote to which domain, which answers whether
 * a sender is known there. Kept as long as the trace, on every node.
 */
import { domainIn } from '../message/address.ts'
import type { Judgement } from '../message/rows.ts'
import type { Insight } from '../message/verdict.ts'

/** Things of one message that can be found again; further ones only with the message. */
const URLS_MAX = 20
const HOSTS_MAX = 40
const FILES_MAX = 50

type Sought = 'link' | 'file'

/** 52 bits: two of a hundred million are the same once in 50 times, and then a row too many is shown. */
function numberOf(kind: string, text: string): number {
  const digest = new Bun.CryptoHasher('sha256').update(`${kind} ${text}`).digest('hex')
  return Number.parseInt(digest.slice(0, 13), 16)
}

/** What a message can be found by. */
export function sightingsOf({ insight }: Pick<Judgement, 'insight'>): readonly number[] {
  if (insight === undefined) return []
  const urls = urlsOf(insight)
  const hosts = new Set(urls.flatMap((url) => hostsOf(hostOf(url))))
  const files = insight.files ?? []
  return [
    ...urls.slice(0, URLS_MAX).map((url) => numberOf('url', withoutEnd(url))),
    ...[...hosts].slice(0, HOSTS_MAX).map((host) => numberOf('host', host)),
    ...files.slice(0, FILES_MAX).map(({ sha256 }) => numberOf('file', String(sha256))),
  ]
}

/** Of one author and one domain of recipients. */
export type Contact = {
  /** The author wrote to it. */
  readonly address: number
  /** Somebody of the author's domain did. */
  readonly domain: number
  /** Anybody at all did. */
  readonly anybody: number
}

/** `author`: an address in lower case. */
export function contactOf(author: string, recipientDomain: string): Contact {
  const by = (who: string): number => numberOf('contact', `${who} ${recipientDomain}`)
  return { address: by(author), domain: by(domainIn(author)), anybody: by('') }
}

function urlsOf(insight: Insight): readonly string[] {
  const list: unknown = insight.urls
  return Array.isArray(list) ? list.filter((item): item is string => typeof item === 'string') : []
}

/** What somebody looks for, as typed: a link, a host or a domain; the SHA-256 of a file. */
export function soughtNumber(kind: Sought, typed: string): number {
  const text = typed.trim()
  if (kind === 'file') return numberOf('file', text.toLowerCase())
  const isHost = /^[^/:\s]+$/.test(text)
  return isHost
    ? numberOf('host', text.toLowerCase().replace(/\.$/, ''))
    : numberOf('url', withoutEnd(text))
}

/** The host of a link that a browser would open; empty when it has none. */
function hostOf(url: string): string {
  try {
    return new URL(url).hostname.replace(/\.$/, '')
  } catch {
    return ''
  }
}

/** The host and the domains above it, down to two labels. */
function hostsOf(host: string): readonly string[] {
  if (host === '' || /^[\d.]+$|[:[\]]/.test(host)) return host === '' ? [] : [host]
  const labels = host.split('.')
  return labels.slice(0, -1).map((_, index) => labels.slice(index).join('.'))
}

/** One slash at the end is the same place. */
function withoutEnd(url: string): string {
  return url.replace(/\/$/, '')
}
