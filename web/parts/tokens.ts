/** API tokens: who made which, and the form for another; its secret is shown once. */
import type { ApiTokenRow } from '../../src/admin/contract.ts'
import type { RefusalError } from '../../src/base/errors.ts'
import type { Visit } from '../guard.ts'
import { type Html, html } from '../html.ts'
import type { Site } from '../site.ts'
import { act, csrf, mayChange } from './forms.ts'
import { badge, copyable, note } from './marks.ts'
import { longTime } from './words.ts'

export type TokenSheet = {
  readonly typed: { readonly name: string; readonly role: string; readonly days: string }
  /** Made by this request; shown now and never again. */
  readonly made: { readonly token: string; readonly row: ApiTokenRow } | null
  readonly refusal: RefusalError | null
}

export const NO_TOKEN: TokenSheet = {
  typed: { name: '', role: 'viewer', days: '' },
  made: null,
  refusal: null,
}

export function tokensList(site: Site, visit: Visit): Html {
  const rows = site.admin.apiTokens()
  const nowMs = site.clock.wallMs()
  const may = mayChange(site, visit)
  const list =
    rows.length === 0
      ? html`<div class="body"><small>There is none. A script asks the API with one instead of a password.</small></div>`
      : html`<div class="scroll"><table><thead><tr><th scope="col">Name</th><th scope="col">Role</th><th scope="col">Valid until</th><th scope="col">Added</th><th scope="col"><span class="sr">Actions</span></th></tr></thead><tbody>${rows.map(
          (row) =>
            html`<tr><td><b>${row.name}</b><br><small class="mono">${row.id}</small></td><td>${row.role === 'admin' ? badge('info', 'Admin') : badge('none', 'Viewer')}</td><td>${validWords(row, nowMs)}</td><td>${longTime(row.addedMs, nowMs)}<br><small>by ${row.by}</small></td><td class="num">${may ? act(visit, `/tokens/${encodeURIComponent(row.id)}/remove`, { words: 'Revoke', small: true }) : ''}</td></tr>`,
        )}</tbody></table></div>`
  return html`<section class="card" id="tokens" aria-labelledby="tok"><header><h2 id="tok">API tokens</h2><small>Valid on all nodes</small></header>${list}</section>`
}

function validWords({ expiresMs }: ApiTokenRow, nowMs: number): Html {
  if (expiresMs === null) return html`<span class="muted">no end</span>`
  if (expiresMs > nowMs) return html`${longTime(expiresMs, nowMs)}`
  return html`<span class="muted">expired ${longTime(expiresMs, nowMs)}</span>`
}

const HX_TOKEN = html`hx-post="/tokens" hx-target="#add-token" hx-select="#add-token" hx-swap="outerHTML" hx-select-oob="#tokens" hx-status:5xx="swap:none"`

export function tokenCard(visit: Visit, { typed, made, refusal }: TokenSheet): Html {
  return html`<section class="card" id="add-token" aria-labelledby="at">${made === null ? form(visit, typed, refusal) : shown(made)}</section>`
}

function form(visit: Visit, typed: TokenSheet['typed'], refusal: RefusalError | null): Html {
  const named = ['name', 'days', 'role']
  const wrong = (field: string): Html | '' =>
    refusal?.field === field ? html` aria-invalid="true" aria-describedby="token-${field}-e"` : ''
  const error = (field: string): Html | '' =>
    refusal?.field === field
      ? html`<p class="err" id="token-${field}-e">${refusal.message} ${refusal.advice}</p>`
      : ''
  const other =
    refusal === null || named.includes(refusal.field ?? '')
      ? ''
      : note('fail', html`<b>${refusal.message}</b> ${refusal.advice}`)
  const pick = (value: string, words: string) =>
    html`<label class="pick"><input type="radio" name="role" value="${value}"${typed.role === value ? html` checked` : ''}> ${words}</label>`
  return html`<header><h2 id="at">Add an API token</h2></header><form class="body stack form" method="post" action="/tokens" ${HX_TOKEN}>${csrf(visit)}${other}
<label>What it is for<span class="in"><input class="wide" name="name" value="${typed.name}" placeholder="monitoring" required maxlength="200" autocomplete="off"${wrong('name')}>${error('name')}</span></label>
<label>Valid for<span class="in"><input class="short" name="days" value="${typed.days}" placeholder="no end" inputmode="numeric" maxlength="6" autocomplete="off"${wrong('days')}><span class="unit">days</span>${error('days')}</span></label>
<div class="stack">${pick('viewer', 'Viewer: may look')}${pick('admin', 'Admin: may look and change')}${error('role')}</div>
<div class="acts"><button class="btn">Add</button></div></form>`
}

function shown({ token, row }: NonNullable<TokenSheet['made']>): Html {
  return html`<header><h2 id="at">Token for ${row.name}</h2></header><div class="body stack">${copyable('token', token)}
<p><small>It is shown only now, and kept nowhere. A script sends it as the header <code>Authorization: Bearer …</code>.</small></p>
<div class="acts"><a class="btn quiet" href="/operators#add-token">Add another one</a></div></div>`
}
