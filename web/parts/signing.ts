/** Keys that sign mail of a domain: what each does, its record to publish, and the form for another. */
import type { SigningKeyRow } from '../../src/admin/contract.ts'
import type { RefusalError } from '../../src/base/errors.ts'
import type { Visit } from '../guard.ts'
import { type Html, html } from '../html.ts'
import type { Site } from '../site.ts'
import { act, csrf, MORPH, mayChange } from './forms.ts'
import { badge, copyable, note } from './marks.ts'

export type SigningSheet = {
  readonly typed: { readonly selector: string; readonly algorithm: string }
  readonly refusal: RefusalError | null
  /** Selector of the key whose button was refused; null: it was the form. */
  readonly about: string | null
}

export const NO_SIGNING: SigningSheet = {
  typed: { selector: '', algorithm: 'rsa' },
  refusal: null,
  about: null,
}

export function signingCard(site: Site, visit: Visit, domain: string, sheet: SigningSheet): Html {
  const keys = site.admin.signingKeys(domain)
  const may = mayChange(site, visit)
  const list =
    keys.length === 0
      ? html`<div class="body"><p>There is no key, and mail of ${domain} goes out as it came, without a signature (DKIM).</p></div>`
      : html`<ul class="alerts">${keys.map((key) => line(key, may ? visit : null, sheet))}</ul>`
  return html`<section class="card" id="signing" aria-labelledby="sig"><header><h2 id="sig">Signing</h2><small>DKIM, by every node with the same keys</small></header>${list}${may ? form(visit, domain, sheet) : ''}</section>`
}

/** Address of the page of one key. */
export function keyPath({ domain, selector }: Pick<SigningKeyRow, 'domain' | 'selector'>): string {
  return `/domains/${encodeURIComponent(domain)}/dkim/${encodeURIComponent(selector)}`
}

function line(key: SigningKeyRow, visit: Visit | null, { refusal, about }: SigningSheet): Html {
  const { selector, algorithm, state, recordName, record } = key
  const refused =
    refusal === null || about !== selector
      ? ''
      : note('fail', html`<b>${refusal.message}</b> ${refusal.advice}`)
  const publish =
    state === 'retired'
      ? ''
      : html`<small>Name of the TXT record</small>${copyable(`name-${selector}`, recordName)}<small>Its text</small>${copyable(`record-${selector}`, record)}`
  return html`<li id="key-${selector}"><div class="head">${stateBadge(key)}<h2>${selector}</h2><small>${algorithm === 'rsa' ? 'RSA' : 'Ed25519'}</small></div>
<p>${stateWords(key)}</p>${troubleNote(key)}${refused}${publish}${visit === null ? '' : buttons(key, visit)}</li>`
}

function stateBadge({ state, isHere, trouble }: SigningKeyRow): Html {
  if (state === 'retired') return badge('none', 'Retired')
  if (!isHere) return badge('unknown', 'Not on this node yet')
  if (state !== 'active') return badge('deferred', 'Waits')
  return trouble === null ? badge('pass', 'Signs') : badge('warn', 'Signs, without a record')
}

function troubleNote({ trouble }: SigningKeyRow): Html | '' {
  if (trouble === null) return ''
  return note(
    'warn',
    html`<b>${trouble}</b> Nobody can check what it signs. Publish the record below, or retire the key.`,
  )
}

function stateWords({ state, isHere, recordName }: SigningKeyRow): string {
  if (state === 'retired')
    return `It signs no more. Leave ${recordName} in the DNS for a week, for mail that is on its way.`
  if (!isHere)
    return 'No node has given it to this one yet: mail that leaves from here goes without its signature. It comes by itself when a node that has it is in reach.'
  if (state === 'active') return 'It signs mail of this domain that goes out.'
  return 'It signs nothing until the DNS has its record. Publish it, then check; it is also looked for by itself.'
}

function buttons(key: SigningKeyRow, visit: Visit): Html {
  const path = keyPath(key)
  const check =
    key.state === 'active' && key.trouble === null
      ? ''
      : act(visit, path, {
          words: key.state === 'retired' ? 'Sign again' : 'Check',
          fields: { act: 'check' },
        })
  const retire =
    key.state === 'active' ? act(visit, path, { words: 'Retire', fields: { act: 'retire' } }) : ''
  return html`<div class="acts">${check}${retire}<a class="btn danger" href="${path}/remove" aria-label="Remove ${key.selector}">Remove</a></div>`
}

function form(visit: Visit, domain: string, { typed, refusal, about }: SigningSheet): Html {
  const mine = about === null ? refusal : null
  const wrong = (field: string): Html | '' =>
    mine?.field === field ? html` aria-invalid="true" aria-describedby="dkim-${field}-e"` : ''
  const error = (field: string): Html | '' =>
    mine?.field === field
      ? html`<p class="err" id="dkim-${field}-e">${mine.message} ${mine.advice}</p>`
      : ''
  const other =
    mine === null || ['selector', 'algorithm'].includes(mine.field ?? '')
      ? ''
      : note('fail', html`<b>${mine.message}</b> ${mine.advice}`)
  const pick = (value: string, words: string): Html =>
    html`<option value="${value}"${typed.algorithm === value ? html` selected` : ''}>${words}</option>`
  const path = `/domains/${encodeURIComponent(domain)}/dkim`
  return html`<form method="post" action="${path}" hx-post="${path}" ${MORPH}>${csrf(visit)}${other}
<div class="field"><div><label for="dkim-selector">Selector</label><p>A name for the new key, never used before: the year will do.</p></div><div class="in"><input class="typed" id="dkim-selector" name="selector" value="${typed.selector}" placeholder="s2026" required maxlength="60" autocomplete="off" autocapitalize="off" spellcheck="false"${wrong('selector')}>${error('selector')}</div></div>
<div class="field"><div><label for="dkim-algorithm">Algorithm</label><p>Every receiver checks RSA. Ed25519 is shorter; use it beside RSA, not alone.</p></div><div class="in"><select id="dkim-algorithm" name="algorithm"${wrong('algorithm')}>${pick('rsa', 'RSA, 2,048 bits')}${pick('ed25519', 'Ed25519')}</select>${error('algorithm')}</div></div>
<div class="field"><span></span><div class="acts"><button class="btn">Add a key</button></div></div></form>`
}
