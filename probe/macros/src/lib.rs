//! The attribute `#[taskscope_probe::main]`. It takes what `#[tokio::main]` takes.

use proc_macro::TokenStream;
use proc_macro2::Span;
use quote::{ToTokens, quote, quote_spanned};
use syn::parse::{Parse, ParseStream};
use syn::punctuated::Punctuated;
use syn::spanned::Spanned;
use syn::{AttrStyle, Expr, ExprLit, ItemFn, Lit, MetaNameValue, Token, parse_macro_input};

/// Runs an `async fn main` on a Tokio runtime that the probe watches, in place of `#[tokio::main]`, whose arguments it
/// takes: `flavor = "multi_thread" | "current_thread" | "local"`, `worker_threads = N`, `start_paused = true`, `name = "…"`,
/// `unhandled_panic = "ignore" | "shutdown_runtime"`, and `crate = "path::to::tokio"`.
///
/// The body of `main` is a row of its own. Tokio needs the features that `#[tokio::main]` needs (`rt-multi-thread`, or
/// `rt` with `flavor = "current_thread"`).
#[proc_macro_attribute]
pub fn main(arguments: TokenStream, item: TokenStream) -> TokenStream {
    let arguments = parse_macro_input!(arguments as Arguments);
    let function = parse_macro_input!(item as ItemFn);
    expand(&arguments, function).unwrap_or_else(|error| error.to_compile_error()).into()
}

#[derive(Default)]
struct Arguments {
    flavor: Flavor,
    worker_threads: Option<Expr>,
    start_paused: Option<Expr>,
    name: Option<Expr>,
    unhandled_panic: Option<syn::Ident>,
    tokio: Option<syn::Path>,
}

#[derive(Default, Clone, Copy, PartialEq)]
enum Flavor {
    #[default]
    MultiThread,
    CurrentThread,
    Local,
}

impl Parse for Arguments {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let mut arguments = Self::default();
        for pair in Punctuated::<MetaNameValue, Token![,]>::parse_terminated(input)? {
            let name = pair.path.to_token_stream().to_string();
            match name.as_str() {
                "flavor" => arguments.flavor = flavor(&pair.value)?,
                "worker_threads" => arguments.worker_threads = Some(pair.value),
                "start_paused" => arguments.start_paused = Some(pair.value),
                "name" => arguments.name = Some(pair.value),
                "unhandled_panic" => arguments.unhandled_panic = Some(unhandled_panic(&pair.value)?),
                "crate" => arguments.tokio = Some(text(&pair.value)?.parse()?),
                _ => {
                    let known = "flavor, worker_threads, start_paused, name, unhandled_panic, crate";
                    return Err(syn::Error::new(
                        pair.path.span(),
                        format!("unknown argument `{name}`; known are {known}"),
                    ));
                }
            }
        }
        if arguments.flavor != Flavor::MultiThread
            && let Some(threads) = &arguments.worker_threads
        {
            return Err(syn::Error::new(
                threads.span(),
                "only a `multi_thread` runtime has `worker_threads`; leave out one of the two",
            ));
        }
        Ok(arguments)
    }
}

fn text(value: &Expr) -> syn::Result<syn::LitStr> {
    match value {
        Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) => Ok(text.clone()),
        other => Err(syn::Error::new(other.span(), "a text in quotes belongs here")),
    }
}

fn flavor(value: &Expr) -> syn::Result<Flavor> {
    let text = text(value)?;
    match text.value().as_str() {
        "multi_thread" => Ok(Flavor::MultiThread),
        "current_thread" => Ok(Flavor::CurrentThread),
        "local" => Ok(Flavor::Local),
        other => {
            let known = "`multi_thread`, `current_thread` or `local`";
            Err(syn::Error::new(text.span(), format!("no flavor is called `{other}`; it is {known}")))
        }
    }
}

fn unhandled_panic(value: &Expr) -> syn::Result<syn::Ident> {
    let text = text(value)?;
    let variant = match text.value().as_str() {
        "ignore" => "Ignore",
        "shutdown_runtime" => "ShutdownRuntime",
        other => {
            let known = "`ignore` or `shutdown_runtime`";
            return Err(syn::Error::new(
                text.span(),
                format!("unhandled_panic cannot be `{other}`; it is {known}"),
            ));
        }
    };
    Ok(syn::Ident::new(variant, text.span()))
}

fn expand(arguments: &Arguments, mut function: ItemFn) -> syn::Result<proc_macro2::TokenStream> {
    if function.sig.asyncness.take().is_none() {
        return Err(syn::Error::new(function.sig.fn_token.span, "`async` is missing before `fn`"));
    }
    if function.sig.ident == "main" && !function.sig.inputs.is_empty() {
        return Err(syn::Error::new(function.sig.inputs.span(), "the main function takes no arguments"));
    }
    let tokio = match &arguments.tokio {
        Some(path) => quote!(#path),
        None => quote!(::tokio),
    };
    // Names of ours must not meet names of the user's: locals of this span are our own.
    let ours = Span::mixed_site();
    let builder = match arguments.flavor {
        Flavor::MultiThread => quote!(#tokio::runtime::Builder::new_multi_thread()),
        Flavor::CurrentThread | Flavor::Local => quote!(#tokio::runtime::Builder::new_current_thread()),
    };
    let build = match arguments.flavor {
        Flavor::Local => {
            quote_spanned!(ours=> builder.enable_all().build_local(::core::default::Default::default()))
        }
        Flavor::MultiThread | Flavor::CurrentThread => quote_spanned!(ours=> builder.enable_all().build()),
    };
    let worker_threads =
        arguments.worker_threads.iter().map(|n| quote_spanned!(ours=> builder.worker_threads(#n);));
    let start_paused =
        arguments.start_paused.iter().map(|paused| quote_spanned!(ours=> builder.start_paused(#paused);));
    let name = arguments.name.iter().map(|name| quote_spanned!(ours=> builder.name(#name);));
    let unhandled = arguments
        .unhandled_panic
        .iter()
        .map(|how| quote_spanned!(ours=> builder.unhandled_panic(#tokio::runtime::UnhandledPanic::#how);));

    let ItemFn { attrs, vis, sig, block } = function;
    let (inner, outer): (Vec<_>, Vec<_>) =
        attrs.into_iter().partition(|attribute| matches!(attribute.style, AttrStyle::Inner(_)));
    // Placed at the body, so that its row says `spawned at` the user's own line.
    let here = ours.located_at(block.span());
    let run = quote_spanned!(here=> return runtime.block_on(::taskscope_probe::__private::main_body(body)));
    Ok(quote_spanned! {ours=>
        #(#outer)*
        #vis #sig {
            #(#inner)*
            let body = async #block;
            #[allow(clippy::expect_used, clippy::diverging_sub_expression, clippy::needless_return)]
            {
                let mut builder = #builder;
                #(#worker_threads)*
                #(#start_paused)*
                #(#name)*
                #(#unhandled)*
                let installed = ::taskscope_probe::__private::install(&mut builder);
                let runtime = #build.expect("failed to build the Tokio runtime");
                // Dropped before the runtime is.
                let installed = installed;
                installed.built(runtime.handle());
                #run;
            }
        }
    })
}
