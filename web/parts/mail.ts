/** What a held mail holds: preview frame, text, headers, source. Nothing in it loads or runs. */
import type { Admin } from '../../src/admin/contract.ts'
import { GatewayError, RefusalError } from '../../src/base/errors.ts'
import { type Html, html } from '../html.ts'
import { link } from './forms.ts'
import { glyph, icon, note } from './marks.ts'
import { counted, size } from './words.ts'

export type Preview = Awaited<ReturnType<Admin['heldPreview']>>

const VIEWS = ['preview', 'text', 'headers', 'source'] as const
export type View = (typeof VIEWS)[number]

/** Bytes of the source that the page shows; the download has all. */
const SOURCE_BYTES_MAX = 256 * 1024

export function viewOf(text: string | undefined): View {
  return VIEWS.find((view) => view === text) ?? 'preview'
}

/** The preview, or the sentences that say why there is none. */
export async function previewOf(
  admin: Pick<Admin, 'heldPreview'>,
  id: string,
): Promise<Preview | string> {
  try {
    return await admin.heldPreview(id)
  } catch (error) {
    if (!(error instanceof GatewayError)) throw error
    return error instanceof RefusalError ? `${error.message} ${error.advice}` : error.message
  }
}

/** The card "Mail" of a held message, and beside it its attachments. */
export async function mailCard(
  admin: Admin,
  id: string,
  view: View,
  preview: Preview | string,
): Promise<Html> {
  const seg = VIEWS.map(
    (name) =>
      html`<a href="${link(`/messages/${id}`, { view: name === 'preview' ? null : name })}#mail"${name === view ? html` aria-current="true"` : ''}>${name.charAt(0).toUpperCase() + name.slice(1)}</a>`,
  )
  return html`<section class="card" id="mail" aria-labelledby="mail-h"><header><h2 id="mail-h">Mail</h2><nav class="seg push" aria-label="View">${seg}</nav></header>
${await content(admin, id, view, preview)}</section>`
}

async function content(
  admin: Admin,
  id: string,
  view: View,
  preview: Preview | string,
): Promise<Html> {
  if (view === 'source') return await sourceOr(admin, id)
  if (typeof preview === 'string') {
    return html`<div class="body">${note('unknown', html`<b>There is no preview.</b> ${preview}`)}</div>`
  }
  const notes = preview.notes.join(' ')
  const said = html`<div class="body acts"><small>Nothing in it loads or runs. ${notes}</small></div>`
  if (view === 'preview') return html`${said}${frame(id)}`
  if (view === 'text') {
    if (preview.text === null) return empty('This mail has no text part.')
    return html`${said}<pre class="mail" hx-ignore>${preview.text}</pre>`
  }
  if (preview.headers.length === 0) return empty('This mail has no headers.')
  return html`<div class="scroll mail" hx-ignore><dl class="facts heads">${preview.headers.map(
    ({ name, value }) => html`<dt>${name}</dt><dd>${value}</dd>`,
  )}</dl></div>`
}

/** In place of the mail when nobody who answers has it. */
export function absentCard(words: Html): Html {
  return html`<section class="card" id="mail" aria-labelledby="mail-h"><header><h2 id="mail-h">Mail</h2></header><div class="body">${note('unknown', words)}</div></section>`
}

function empty(words: string): Html {
  return html`<div class="body"><small>${words}</small></div>`
}

/** The frame has an address and a policy of its own (pages/frame.ts). */
export function frame(id: string): Html {
  return html`<iframe sandbox src="/messages/${id}/frame" title="Preview of the mail, without scripts and links" loading="lazy" referrerpolicy="no-referrer" hx-ignore></iframe>`
}

/** The source, or why the node that has it does not give it. */
async function sourceOr(admin: Admin, id: string): Promise<Html> {
  try {
    return await source(admin, id)
  } catch (error) {
    if (!(error instanceof RefusalError) || error.code !== 'unavailable') throw error
    return html`<div class="body">${note('unknown', html`<b>${error.message}</b> ${error.advice}`)}</div>`
  }
}

async function source(admin: Admin, id: string): Promise<Html> {
  const { stream, sizeBytes } = await admin.heldSource(id)
  const text = await head(stream)
  const cut = sizeBytes > SOURCE_BYTES_MAX ? `The first ${size(SOURCE_BYTES_MAX)} of ` : ''
  return html`<div class="body acts"><small>${cut}${size(sizeBytes)}, as it was received.</small><a class="btn small push" href="/messages/${id}/source">Download</a></div><pre class="mail" hx-ignore>${text}</pre>`
}

async function head(stream: ReadableStream<Uint8Array>): Promise<string> {
  const pieces: Uint8Array[] = []
  let sizeBytes = 0
  for await (const piece of stream as unknown as AsyncIterable<Uint8Array>) {
    pieces.push(piece)
    sizeBytes += piece.length
    if (sizeBytes >= SOURCE_BYTES_MAX) break
  }
  return Buffer.concat(pieces).subarray(0, SOURCE_BYTES_MAX).toString('utf8')
}

export function attachmentsCard(preview: Preview | string): Html | '' {
  if (typeof preview === 'string' || preview.attachments.length === 0) return ''
  const files = preview.attachments.slice(0, 100)
  const more = preview.attachments.length - files.length
  return html`<section class="card" aria-labelledby="att"><header><h2 id="att">Attachments</h2><small>${preview.attachments.length}</small></header><ul class="todo" hx-ignore>${files.map(
    ({ name, type, sizeBytes, sha256 }) =>
      html`<li>${icon('clip')}<div class="wrap"><b>${name}</b> <span class="tag">${size(sizeBytes)}</span><br><small>${type}<br>SHA-256 <code>${sha256}</code></small></div></li>`,
  )}</ul>${more === 0 ? '' : html`<div class="body"><small>And ${more} more.</small></div>`}</section>`
}

const HOPS_SHOWN = 20

/** The servers that say they had it, the last one first; only the client of ours is known. */
export function hopsCard(preview: Preview | string): Html | '' {
  if (typeof preview === 'string') return ''
  const hops = preview.headers.filter(({ name }) => name.toLowerCase() === 'received')
  if (hops.length === 0) return ''
  return html`<section class="card" aria-labelledby="hops"><header><h2 id="hops">The way here</h2><small>${counted(hops.length, 'hop')}, as they say themselves</small></header><ul class="todo" hx-ignore>${hops
    .slice(0, HOPS_SHOWN)
    .map(({ value }) => {
      const { from, by, at } = hopOf(value)
      return html`<li>${glyph('none')}<div class="wrap"><b>${from}</b> to <b>${by}</b>${at === '' ? '' : html`<br><small>${at}</small>`}</div></li>`
    })}</ul>${hops.length > HOPS_SHOWN ? html`<div class="body"><small>And ${hops.length - HOPS_SHOWN} more.</small></div>` : ''}</section>`
}

/** RFC 5321 section 4.4, as far as people want to know; each part is a stranger's words. */
export function hopOf(value: string): {
  readonly from: string
  readonly by: string
  readonly at: string
} {
  const semicolon = value.lastIndexOf(';')
  const text = semicolon === -1 ? value : value.slice(0, semicolon)
  const word = (name: string): string =>
    new RegExp(`(?:^|\\s)${name}\\s+([^\\s;]{1,255})`, 'i').exec(text)?.[1] ?? 'somebody'
  const ip = /\[([0-9a-f.:]{3,45})\]/i.exec(text)?.[1]
  const from = word('from')
  return {
    from: ip === undefined || from.includes(ip) ? from : `${from} (${ip})`,
    by: word('by'),
    at: semicolon === -1 ? '' : value.slice(semicolon + 1).trim(),
  }
}
