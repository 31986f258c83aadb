// Postern admin: what HTML cannot do alone. Everything works without it.
const one = (selector) => document.querySelector(selector)
const rows = () => [...document.querySelectorAll('.data tbody tr')]

function at(row) {
  for (const other of rows()) other.classList.toggle('at', other === row)
}

function move(step) {
  const all = rows()
  const from = all.findIndex((row) => row.classList.contains('at'))
  const to = all[Math.min(all.length - 1, Math.max(0, from + step))]
  if (!to) return
  at(to)
  to.querySelector('a')?.focus({ preventScroll: true })
  to.scrollIntoView({ block: 'nearest' })
}

const keys = {
  '/': () => one('#find')?.focus(),
  j: () => move(1),
  k: () => move(-1),
  x: () => one('.data tr.at [type=checkbox]')?.click(),
  '?': () => one('#keys')?.showModal(),
}

addEventListener('keydown', (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return
  if (event.target.matches('input:not([type=checkbox]), textarea, select')) return
  const act = keys[event.key]
  if (!act) return
  event.preventDefault()
  act()
})

function count() {
  const boxes = [...document.querySelectorAll('.data tbody [type=checkbox]')]
  const chosen = boxes.filter((box) => box.checked).length
  const label = one('[data-count]')
  const all = one('[data-all]')
  if (label) label.textContent = `${chosen} selected`
  if (all) {
    all.checked = chosen > 0 && chosen === boxes.length
    all.indeterminate = chosen > 0 && chosen < boxes.length
  }
}

addEventListener('change', (event) => {
  if (event.target.matches('[data-all]'))
    for (const box of document.querySelectorAll('.data tbody [type=checkbox]')) box.checked = event.target.checked
  if (event.target.matches('.data [type=checkbox]')) count()
})

addEventListener('reset', () => setTimeout(count))

async function copy(button) {
  const source = one(button.dataset.copy)
  const label = button.querySelector('span')
  try {
    await navigator.clipboard.writeText(source.textContent.trim())
    label.textContent = 'Copied'
  } catch {
    // Without https there is no clipboard: the text is marked for the keys of the reader.
    getSelection().selectAllChildren(source)
    label.textContent = 'Press Ctrl C'
  }
  setTimeout(() => {
    label.textContent = 'Copy'
  }, 4000)
}

// Paused: nothing is asked and nothing moves until the reader wants it.
let paused = false
let stream = null

function pause(button) {
  paused = !paused
  button.setAttribute('aria-pressed', String(paused))
  button.setAttribute('aria-label', paused ? 'Go on with live updates' : 'Pause live updates')
  const words = one('#live .t')
  if (paused && words) words.textContent = words.textContent.replace(/^\w+/, 'Paused')
  const source = one('[data-stream]')
  if (!source) return
  if (paused) stream?.reader?.cancel()
  else htmx.process(source)
}

// A stream begins with all that there is, so nothing is missed by closing it.
addEventListener('htmx:sse:before:connection', (event) => {
  stream = event.detail.connection
  if (paused) event.preventDefault()
})

addEventListener('click', (event) => {
  const copying = event.target.closest('button[data-copy]')
  if (copying) return void copy(copying)
  const pausing = event.target.closest('button[data-pause]')
  if (pausing) return pause(pausing)
  const row = event.target.closest('.data tbody tr')
  if (row && event.target.closest('a[hx-get]')) at(row)
  const button = event.target.closest('button[data-theme-toggle]')
  if (!button) return
  event.preventDefault()
  const root = document.documentElement
  const dark = root.dataset.theme ? root.dataset.theme === 'dark' : matchMedia('(prefers-color-scheme: dark)').matches
  root.dataset.theme = dark ? 'light' : 'dark'
  const secure = location.protocol === 'https:' ? '; secure' : ''
  document.cookie = `theme=${root.dataset.theme}; path=/; max-age=31536000; samesite=lax${secure}`
})

addEventListener('htmx:before:request', (event) => {
  const { ctx } = event.detail
  const source = ctx.sourceElement
  // Nobody looks: nothing is asked.
  if (source?.matches('[data-poll]') && (paused || document.hidden)) return event.preventDefault()
  // Too narrow for the card beside the list: the same link opens the page.
  const peek = one('#peek')
  if (ctx.target === peek && peek && peek.offsetParent === null) {
    event.preventDefault()
    location.assign(source.href)
  }
})

function settle() {
  count()
  for (const button of document.querySelectorAll('[data-pause]')) button.hidden = false
  for (const toast of document.querySelectorAll('.toast:not([data-seen])')) {
    toast.dataset.seen = ''
    setTimeout(() => toast.remove(), 8000)
  }
}

addEventListener('htmx:after:swap', (event) => {
  settle()
  const poll = event.detail.ctx?.sourceElement?.matches('[data-poll], [data-stream]')
  if (!poll && document.activeElement === document.body) one('#main')?.focus({ preventScroll: true })
})

function fail(text) {
  const toast = document.createElement('div')
  toast.className = 'toast'
  toast.setAttribute('role', 'alert')
  toast.textContent = text
  one('#toasts')?.replaceChildren(toast)
  settle()
}

addEventListener('htmx:response:error', (event) => {
  if (event.detail.ctx.response.status >= 500)
    fail('This node failed. Reload to see whether it was done, then try again.')
})

let silent = false
addEventListener('htmx:after:request', () => {
  silent = false
})
addEventListener('htmx:error', (event) => {
  // A poll fails every few seconds while the node is away; once is enough.
  if (event.detail.ctx?.sourceElement?.matches('[data-poll]') && silent) return
  silent = true
  fail('This node does not answer. Try again in a moment.')
})

settle()
