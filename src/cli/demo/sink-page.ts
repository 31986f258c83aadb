/** The page of what reached the sink, with a button that sends the sample mails again. */

import { isoTime } from '../../base/clock.ts'
import { formatAddress } from '../address.ts'
import { size } from '../print.ts'
import type { Address } from '../world.ts'
import css from './sink.css' with { type: 'text' }
import { type Arrival, portRefusal } from './sink.ts'

export type SinkPage = { readonly url: string; stop(): Promise<void> }

/** Nothing but our own style sheet, and the form that goes to ourselves. */
const POLICY =
  "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
const HEADERS = {
  'content-security-policy': POLICY,
  'x-content-type-options': 'nosniff',
  // Not no-referrer: a form would then send `Origin: null`, as a foreign page may.
  'referrer-policy': 'same-origin',
  'cache-control': 'no-store',
}
const MARK =
  '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 24 24"><path fill="#0b8099" fill-rule="evenodd" d="M1 5h4V2h4v3h6V2h4v3h4v17h-7v-7a4 4 0 0 0-8 0v7H1z"/></svg>'

/** What the page shows and does. */
export type SinkPageParts = {
  /** Address of the pages of Postern; empty while the node starts. */
  gateway(): string
  arrivals(): readonly Arrival[]
  /** Sends the samples once more. */
  again(): Promise<void>
}

/** Serves on loopback. @throws RefusalError when the port is taken */
export function serveSinkPage(address: Address, parts: SinkPageParts): SinkPage {
  const answer = async (request: Request): Promise<Response> => {
    const url = new URL(request.url)
    if (!isOurs(request, url)) return new Response('Not here.\n', { status: 403, headers: HEADERS })
    switch (`${request.method} ${url.pathname}`) {
      case 'GET /':
        return html(pageText(parts.gateway(), parts.arrivals()))
      case 'GET /sink.css':
        return new Response(css, { headers: { ...HEADERS, 'content-type': 'text/css' } })
      case 'GET /mark.svg':
        return new Response(MARK, { headers: { ...HEADERS, 'content-type': 'image/svg+xml' } })
      case 'GET /arrivals':
        return Response.json(parts.arrivals(), { headers: HEADERS })
      case 'POST /again':
        await parts.again()
        return new Response(null, { status: 303, headers: { ...HEADERS, location: '/' } })
      default:
        return new Response('Not found.\n', { status: 404, headers: HEADERS })
    }
  }
  const server = listen(address, answer)
  const { hostname: host = address.host, port = address.port } = server
  return { url: `http://${formatAddress({ host, port })}`, stop: () => server.stop(true) }
}

function listen(address: Address, answer: (request: Request) => Promise<Response>) {
  try {
    return Bun.serve({ hostname: address.host, port: address.port, fetch: answer })
  } catch (error) {
    throw portRefusal(error, address, '--sink-web')
  }
}

/**
 * Only by a loopback name, so that no foreign name leads here (DNS rebinding), and a form only
 * from this page.
 */
function isOurs(request: Request, url: URL): boolean {
  if (!/^(localhost|127\.\d+\.\d+\.\d+|\[::1\])$/.test(url.hostname)) return false
  const origin = request.headers.get('origin')
  return request.method === 'GET' || origin === null || origin === url.origin
}

function html(text: string): Response {
  return new Response(text, { headers: { ...HEADERS, 'content-type': 'text/html; charset=utf-8' } })
}

function pageText(gateway: string, arrivals: readonly Arrival[]): string {
  const rows = arrivals.map(row).join('\n')
  const list =
    arrivals.length === 0
      ? '<p class="empty">Nothing has arrived yet.</p>'
      : `<table><thead><tr><th>Subject<th>From<th>To<th>Arrived<th class="num">Times</thead>
<tbody>${rows}</tbody></table>`
  return `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>What arrived · Postern demo</title>
<meta name="viewport" content="width=device-width,initial-scale=1">
<meta http-equiv="refresh" content="3">
<link rel="icon" href="/mark.svg"><link rel="stylesheet" href="/sink.css"></head>
<body><main><header><h1>What arrived</h1>
<p>This stands for the mail server behind the gateway. Held mail is missing here until somebody
releases it <a href="${Bun.escapeHTML(gateway)}">in Postern</a>.</p>
<form method="post" action="/again"><button>Send the sample mails again</button></form></header>
<section>${list}</section></main></body></html>
`
}

function row({ subject, from, recipients, sizeBytes, firstMs, times }: Arrival): string {
  const text = (value: string) => Bun.escapeHTML(value)
  const time = isoTime(firstMs)
  return `<tr><th scope="row">${text(subject || '(no subject)')}<small>${size(sizeBytes)}</small>
<td>${text(from || '(nobody)')}<td>${recipients.map(text).join('<br>')}
<td><time datetime="${time}">${time.slice(11, 19)} UTC</time><td class="num">${times}`
}
