/** The page of the demo: its nodes, each with a button, and what reached the sink. */

import type { ClusterEvent } from '../../admin/contract.ts'
import { isoTime } from '../../base/clock.ts'
import { formatAddress } from '../address.ts'
import { size } from '../print.ts'
import type { Address } from '../world.ts'
import type { DemoNode } from './nodes.ts'
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
  nodes(): readonly DemoNode[]
  events(): readonly ClusterEvent[]
  /** Stops or starts a node. False: there is none of that name. */
  toggle(name: string): Promise<boolean>
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
        return html(pageText(parts))
      case 'GET /sink.css':
        return new Response(css, { headers: { ...HEADERS, 'content-type': 'text/css' } })
      case 'GET /mark.svg':
        return new Response(MARK, { headers: { ...HEADERS, 'content-type': 'image/svg+xml' } })
      case 'GET /arrivals':
        return Response.json(parts.arrivals(), { headers: HEADERS })
      case 'POST /again':
        await parts.again()
        return new Response(null, { status: 303, headers: { ...HEADERS, location: '/' } })
      case 'POST /toggle': {
        const known = await parts.toggle(url.searchParams.get('node') ?? '')
        if (!known) return new Response('Not found.\n', { status: 404, headers: HEADERS })
        return new Response(null, { status: 303, headers: { ...HEADERS, location: '/' } })
      }
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

function pageText(parts: SinkPageParts): string {
  const arrivals = parts.arrivals()
  const list =
    arrivals.length === 0
      ? '<p class="empty">Nothing has arrived yet.</p>'
      : `<table><thead><tr><th>Subject<th>From<th>To<th>Arrived<th class="num">Times</thead>
<tbody id="arrivals">${arrivals.map(row).join('\n')}</tbody></table>`
  const events = parts.events()
  const told =
    events.length === 0
      ? ''
      : `<h2>What the nodes noticed</h2><ol>${events.map(eventLine).join('')}</ol>`
  return `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Postern demo</title>
<meta name="viewport" content="width=device-width,initial-scale=1">
<meta http-equiv="refresh" content="3">
<link rel="icon" href="/mark.svg"><link rel="stylesheet" href="/sink.css"></head>
<body><main><header><h1>Three nodes, one gateway</h1>
<p>Stop one and look at the pages of another: its held mail is still listed, settings can be
changed, mail goes on. Start it again and it catches up by itself.</p></header>
<section><table><thead><tr><th>Node<th>State<th>Takes mail at<th></thead>
<tbody id="nodes">${parts.nodes().map(nodeRow).join('\n')}</tbody></table></section>
${told}
<header><h2>What arrived</h2>
<p>This stands for the mail server behind the gateway. Held mail is missing here until somebody
releases it.</p>
<form method="post" action="/again"><button>Send the sample mails again</button></form></header>
<section>${list}</section></main></body></html>
`
}

const DONE: Readonly<Record<string, string>> = {
  starting: 'is starting',
  stopping: 'is stopping',
  stopped: 'stopped',
}

function nodeRow({ name, state, smtp, web }: DemoNode): string {
  const text = (value: string) => Bun.escapeHTML(value)
  const isOn = DONE[state] === undefined
  const shown = isOn ? `<a href="${text(web)}">${text(name)}</a>` : text(name)
  const isBusy = state === 'starting' || state === 'stopping'
  const act = state === 'stopped' || state === 'starting' ? 'Start' : 'Stop'
  const button = `<button aria-label="${act} ${text(name)}"${isBusy ? ' disabled' : ''}>${act}</button>`
  return `<tr><th scope="row">${shown}<td>${text(DONE[state] ?? state)}<td>${formatAddress(smtp)}
<td class="num"><form method="post" action="/toggle?node=${encodeURIComponent(name)}">${button}</form>`
}

function eventLine({ atMs, name, what, detail }: ClusterEvent): string {
  const text = (value: string) => Bun.escapeHTML(value)
  const time = isoTime(atMs)
  return `<li><time datetime="${time}">${time.slice(11, 19)} UTC</time> ${text(name)}: ${text(what)}${detail === '' ? '' : ` <small>${text(detail)}</small>`}`
}

function row({ subject, from, recipients, sizeBytes, firstMs, times }: Arrival): string {
  const text = (value: string) => Bun.escapeHTML(value)
  const time = isoTime(firstMs)
  return `<tr><th scope="row">${text(subject || '(no subject)')}<small>${size(sizeBytes)}</small>
<td>${text(from || '(nobody)')}<td>${recipients.map(text).join('<br>')}
<td><time datetime="${time}">${time.slice(11, 19)} UTC</time><td class="num">${times}`
}
