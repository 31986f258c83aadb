/** Set-up by the one-time code: first domain, then the first operator, then closed for good. */
import { Elysia, t } from 'elysia'
import type { Author, NextHopProbe } from '../../src/admin/contract.ts'
import { RefusalError } from '../../src/base/errors.ts'
import { type Html, html, seeOther } from '../html.ts'
import { link } from '../parts/forms.ts'
import { glyph, note } from '../parts/marks.ts'
import { door } from '../parts/shell.ts'
import { sentence } from '../parts/words.ts'
import type { Site } from '../site.ts'
import { mustMatch } from './login.ts'

const CODE = t.String({ maxLength: 200 })
/** Who adds the first domain: nobody is an operator yet. */
const SETUP: Author = { name: 'set-up', role: 'admin' }

type Step = 'domain' | 'operator'
type Typed = { readonly domain: string; readonly hop: string; readonly name: string }
const BLANK: Typed = { domain: '', hop: '', name: '' }

export function setupPages(site: Site) {
  const { admin, guard } = site
  /** Null when the code opens the set-up; else the answer to give. */
  const refused = (request: Request, code: string): Response | null => {
    if (!admin.needsSetup()) return seeOther('/login')
    if (code === '') return codeDoor(site, request, '', null)
    try {
      if (admin.setupCodeMatches(code, guard.visitOf(request).client.ip)) return null
    } catch (error) {
      if (!(error instanceof RefusalError)) throw error
      return codeDoor(site, request, code, error)
    }
    const wrong = new RefusalError(
      'forbidden',
      'code',
      'This is not the set-up code.',
      'Copy it from the output of postern serve.',
    )
    return codeDoor(site, request, code, wrong)
  }
  return new Elysia({ prefix: '/setup' })
    .get(
      '/',
      ({ request, query }) => {
        const { code = '', step } = query
        const answer = refused(request, code)
        if (answer !== null) return answer
        const at = step === 'operator' || (step !== 'domain' && admin.domains().length > 0)
        return wizard(site, request, code, at ? operatorStep(site, BLANK, null) : domainStep(BLANK))
      },
      {
        query: t.Object({ code: t.Optional(CODE), step: t.Optional(t.String({ maxLength: 20 })) }),
      },
    )
    .post(
      '/domain',
      async ({ request, body }) => {
        const answer = refused(request, body.code)
        if (answer !== null) return answer
        const onward = seeOther(link('/setup', { code: body.code, step: 'operator' }))
        if (body.act === 'skip') return onward
        const typed = { ...BLANK, domain: body.domain.trim(), hop: body.hop.trim() }
        try {
          const probe = typed.hop === '' ? null : await admin.probeNextHop(typed.hop)
          const sure = body.act === 'anyway' || body.act === 'save'
          if (!sure || (probe !== null && !probe.ok && body.act !== 'anyway')) {
            return wizard(site, request, body.code, domainStep(typed, { probe }))
          }
          const nextHops = typed.hop === '' ? [] : [typed.hop]
          admin.putDomain(SETUP, typed.domain, { nextHops })
          return onward
        } catch (error) {
          if (!(error instanceof RefusalError)) throw error
          return wizard(site, request, body.code, domainStep(typed, { refusal: error }), 422)
        }
      },
      {
        body: t.Object({
          code: CODE,
          domain: t.String({ maxLength: 300 }),
          hop: t.String({ maxLength: 300 }),
          act: t.Optional(t.String({ maxLength: 20 })),
        }),
      },
    )
    .post(
      '/operator',
      async ({ request, body }) => {
        const answer = refused(request, body.code)
        if (answer !== null) return answer
        const { code, name, password } = body
        const clientIp = guard.visitOf(request).client.ip
        try {
          mustMatch(password, body.again)
          await admin.setup({ code, name, password, clientIp })
        } catch (error) {
          if (!(error instanceof RefusalError)) throw error
          const typed = { ...BLANK, name }
          return wizard(site, request, code, operatorStep(site, typed, error), 422)
        }
        const entered = await admin.login(name.trim(), password, clientIp)
        site.flashes.add(entered.session, 'The set-up is done, and its code is void')
        const home = seeOther('/')
        home.headers.append('set-cookie', guard.cookie(entered.session))
        return home
      },
      {
        body: t.Object({
          code: CODE,
          name: t.String({ maxLength: 200 }),
          password: t.String({ maxLength: 1_000 }),
          again: t.String({ maxLength: 1_000 }),
        }),
      },
    )
}

/** Asks for the code, for who came without it or with a wrong one. */
function codeDoor(
  site: Site,
  request: Request,
  code: string,
  refusal: RefusalError | null,
): Response {
  const main = html`<section class="card"><div class="body first">
<form method="get" action="/setup">
<h1>Set up ${site.nodeName}</h1>
<p class="muted">The code stands in the output of <code>postern serve</code> on this machine, in the line with the address of the set-up.</p>
${refusal === null ? '' : note('fail', html`<b>${refusal.message}</b> ${refusal.advice}`)}
<label>Set-up code<input name="code" value="${code}" required maxlength="200" autocomplete="off" autocapitalize="off" spellcheck="false" autofocus></label>
<button class="btn primary">Go on</button>
</form></div></section>`
  const status = refusal === null ? 200 : refusal.code === 'locked' ? 429 : 403
  return door(site, site.guard.visitOf(request), { title: 'Set up', main, status })
}

type Sheet = { readonly step: Step; readonly form: Html }

function wizard(site: Site, request: Request, code: string, sheet: Sheet, status = 200): Response {
  const domains = site.admin.domains().length > 0
  const step = (at: Step, words: string, done: boolean) =>
    html`<li${at === sheet.step ? html` aria-current="step"` : ''}>${glyph(done ? 'pass' : 'none')}${words}</li>`
  const main = html`<section class="card wizard">
<ol aria-label="Steps">${step('domain', 'First domain', domains)}${step('operator', 'Your account', false)}</ol>
<form method="post" action="/setup/${sheet.step}" class="body first"><input type="hidden" name="code" value="${code}">
${sheet.form}
</form></section>`
  return door(site, site.guard.visitOf(request), { title: 'Set up', main, wide: true, status })
}

function domainStep(
  typed: Typed,
  about: { readonly probe?: NextHopProbe | null; readonly refusal?: RefusalError } = {},
): Sheet {
  const { probe = null, refusal } = about
  const tried = probe !== null
  const wrong = (field: string) =>
    refusal?.field === field ? html` aria-invalid="true" aria-describedby="wrong"` : ''
  // The first button is the one that Enter presses.
  const save =
    tried && !probe.ok
      ? html`<button class="btn primary" name="act" value="try">Try again</button><button class="btn" name="act" value="anyway">Save anyway</button>`
      : html`<button class="btn primary" name="act" value="save">Save and go on</button><button class="btn" name="act" value="try">Try it</button>`
  const form = html`<div><h1>Which domain, and where does its mail go?</h1><p class="muted">Postern receives the mail of this domain, checks it, and hands the good mail to your mail server. You can add more domains later.</p></div>
${refusal === undefined ? '' : html`<div id="wrong">${note('fail', html`<b>${refusal.message}</b> ${refusal.advice}`)}</div>`}
<label>Domain<input name="domain" value="${typed.domain}" placeholder="example.com" required maxlength="300" autocapitalize="off" spellcheck="false"${wrong('name')}></label>
<label>Your mail server<span class="in"><input name="hop" class="wide" value="${typed.hop}" placeholder="smtp://mail.example.com:25" maxlength="300" autocapitalize="off" spellcheck="false"${wrong('nextHops')}></span><small>Its name or address and port. Begin with lmtp:// for LMTP. Leave it empty to deliver by the MX records of the domain.</small></label>
${probe === null ? '' : probeNote(probe)}
<div class="acts">${save}<button class="btn quiet push" name="act" value="skip" formnovalidate>Skip</button></div>`
  return { step: 'domain', form }
}

/** What a next hop said when it was tried. */
export function probeNote(probe: NextHopProbe): Html {
  if (probe.ok) return note('pass', html`<b>${probe.hop} answers.</b> It said: ${probe.answer}`)
  const why = sentence(probe.answer)
  return note('fail', html`<b>${probe.hop} does not take mail now.</b> ${why}`)
}

function operatorStep(site: Site, typed: Typed, refusal: RefusalError | null): Sheet {
  const domains = site.admin.domains()
  const saved =
    domains.length === 0
      ? ''
      : note(
          'pass',
          html`<b>Postern takes mail for ${domains.map(({ name }) => name).join(', ')}.</b> You can change this later.`,
        )
  const wrong = (field: string) =>
    refusal?.field === field ? html` aria-invalid="true" aria-describedby="wrong"` : ''
  const form = html`<div><h1>Who are you?</h1><p class="muted">With this name you sign in to these pages. When it is saved, the set-up closes for good and its code is void.</p></div>
${saved}
${refusal === null ? '' : html`<div id="wrong">${note('fail', html`<b>${refusal.message}</b> ${refusal.advice}`)}</div>`}
<label>Name<input name="name" value="${typed.name}" autocomplete="username" required maxlength="200" autocapitalize="off" spellcheck="false"${wrong('name')}></label>
<label>Password<input name="password" type="password" autocomplete="new-password" required maxlength="1000"${wrong('password')}></label>
<label>Password again<input name="again" type="password" autocomplete="new-password" required maxlength="1000"${wrong('again')}></label>
<div class="acts"><button class="btn primary">Finish the set-up</button></div>`
  return { step: 'operator', form }
}
